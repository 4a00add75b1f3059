/* The text of the last error of each thread. */
#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char last_error[512];

const char *planish_error(void) { return last_error; }

int planish_fail(int status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}
