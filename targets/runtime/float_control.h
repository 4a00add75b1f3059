/* The control register of floating-point arithmetic: how kernels compute, whatever their caller has
 * set. Rounding is to nearest and nothing traps, so that a result does not depend on the thread
 * that computes it; subnormal numbers count as zeros unless a model keeps them, because processors
 * take a hundred times as long for each of them.
 *
 * Conversions from and to float16 are not concerned: its subnormals are ordinary float32 numbers.
 * Sources: Intel SDM volume 1, 10.2.3 (MXCSR); Arm ARM, FPCR.
 */
#ifndef PLANISH_FLOAT_CONTROL_H
#define PLANISH_FLOAT_CONTROL_H

#include <stdint.h>

#if defined(__x86_64__)
#define PLANISH_FLOAT_KEEP 0x1F80u  /* every exception masked, round to nearest */
#define PLANISH_FLOAT_FLUSH 0x9FC0u /* and FTZ (results) and DAZ (operands) */

static inline uint64_t planish_float_control(void) {
    uint32_t control;
    __asm__ volatile("stmxcsr %0" : "=m"(control)::"memory");
    return control;
}

static inline void planish_set_float_control(uint64_t control) {
    uint32_t word = (uint32_t)control;
    __asm__ volatile("ldmxcsr %0" ::"m"(word) : "memory");
}
#elif defined(__aarch64__)
#define PLANISH_FLOAT_KEEP 0u
#define PLANISH_FLOAT_FLUSH (1u << 24) /* FZ: results and operands; not FZ16 */

static inline uint64_t planish_float_control(void) {
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control)::"memory");
    return control;
}

static inline void planish_set_float_control(uint64_t control) {
    __asm__ volatile("msr fpcr, %0" ::"r"(control) : "memory");
}
#else /* no such mode: subnormal numbers are kept */
#define PLANISH_FLOAT_KEEP 0u
#define PLANISH_FLOAT_FLUSH 0u

static inline uint64_t planish_float_control(void) { return 0; }

static inline void planish_set_float_control(uint64_t control) { (void)control; }
#endif

#endif
