/*
 * rustc's instrumentation calls these; gcc's runtime watches the plain functions and
 * has them under no other name (before gcc 13).
 */
#include <stddef.h>
#include <string.h>

void *__tsan_memset(void *to, int c, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memmove(void *to, const void *from, size_t n);

void *__tsan_memset(void *to, int c, size_t n) { return memset(to, c, n); }
void *__tsan_memcpy(void *to, const void *from, size_t n) { return memcpy(to, from, n); }
void *__tsan_memmove(void *to, const void *from, size_t n) { return memmove(to, from, n); }
