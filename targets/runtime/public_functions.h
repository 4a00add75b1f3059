/* The functions behind public.h, at the end of a model.c that defines model_desc. */
PUBLIC int NAME_open(const char *weights_path, NAME_model **model) {
    return planish_model_open(&model_desc, weights_path, (planish_model **)model);
}
PUBLIC int NAME_open_file(int descriptor, int copy, NAME_model **model) {
    return planish_model_open_file(&model_desc, descriptor, copy, (planish_model **)model);
}
PUBLIC void NAME_close(NAME_model *model) { planish_model_close((planish_model *)model); }
PUBLIC int NAME_context_create(NAME_model *model, int threads, NAME_context **context) {
    return planish_context_create((planish_model *)model, threads, (planish_context **)context);
}
PUBLIC void NAME_context_destroy(NAME_context *context) {
    planish_context_destroy((planish_context *)context);
}
PUBLIC int NAME_context_threads(const NAME_context *context) {
    return planish_context_threads((const planish_context *)context);
}
PUBLIC int NAME_run(NAME_context *context, const void *const *in, void *const *out) {
    return planish_run((planish_context *)context, 0, in, out, NULL);
}
PUBLIC int NAME_run_threads(NAME_context *context, int threads, const void *const *in,
                            void *const *out) {
    return planish_run((planish_context *)context, threads, in, out, NULL);
}
PUBLIC int NAME_profile(NAME_context *context, const void *const *in, void *const *out,
                        double *seconds) {
    planish_times times = {NULL, seconds};
    return planish_run((planish_context *)context, 0, in, out, &times);
}
PUBLIC int NAME_trace(NAME_context *context, const void *const *in, void *const *out,
                      double *begins, double *seconds) {
    planish_times times = {begins, seconds};
    return planish_run((planish_context *)context, 0, in, out, &times);
}
PUBLIC const char *NAME_error(void) { return planish_error(); }

static const planish_tensor *tensor_at(const planish_tensor *table, uint32_t count, int index) {
    return index >= 0 && (uint32_t)index < count ? table + index : NULL;
}
PUBLIC int NAME_input_count(void) { return (int)model_desc.input_count; }
PUBLIC const NAME_tensor *NAME_input(int index) {
    return (const NAME_tensor *)tensor_at(model_desc.inputs, model_desc.input_count, index);
}
PUBLIC int NAME_output_count(void) { return (int)model_desc.output_count; }
PUBLIC const NAME_tensor *NAME_output(int index) {
    return (const NAME_tensor *)tensor_at(model_desc.outputs, model_desc.output_count, index);
}
PUBLIC int NAME_kernel_count(void) { return (int)model_desc.kernel_count; }
PUBLIC const char *NAME_kernel_name(int index) {
    return index >= 0 && (uint32_t)index < model_desc.kernel_count ? model_desc.kernels[index].name
                                                                   : NULL;
}
PUBLIC uint64_t NAME_weights_bytes(void) { return model_desc.weights_bytes; }
PUBLIC uint64_t NAME_arena_bytes(void) { return model_desc.arena_bytes; }
