/*
 * rustc's instrumentation calls these; gcc's runtime watches the plain functions and
 * has them under no other name (before gcc 13).
 */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

void *__tsan_memset(void *to, int c, size_t n);
void *__tsan_memcpy(void *to, const void *from, size_t n);
void *__tsan_memmove(void *to, const void *from, size_t n);

void *__tsan_memset(void *to, int c, size_t n) { return memset(to, c, n); }
void *__tsan_memcpy(void *to, const void *from, size_t n) { return memcpy(to, from, n); }
void *__tsan_memmove(void *to, const void *from, size_t n) { return memmove(to, from, n); }

/*
 * The last owner of an Arc is ordered after the others by a fence, which the runtime does
 * not know. It gives up its share as the others do, and so can be ordered here.
 */
unsigned long __tsan_atomic64_fetch_add(volatile void *at, unsigned long n, int order);
unsigned long __tsan_atomic64_fetch_sub(volatile void *at, unsigned long n, int order);

unsigned long __tsan_atomic64_fetch_sub(volatile void *at, unsigned long n, int order)
{
	return __tsan_atomic64_fetch_add(at, -n, order == __ATOMIC_RELEASE ? __ATOMIC_ACQ_REL : order);
}

/* The library closes by syscall(2), of which the runtime has to be told. */
void __sanitizer_syscall_pre_impl_close(long fd);

static long (*libc_syscall)(long, long, long, long, long, long, long);

__attribute__((constructor(101))) static void find_syscall(void)
{
	*(void **)&libc_syscall = dlsym(RTLD_NEXT, "syscall");
}

long syscall(long number, ...)
{
	long a[6];
	va_list ap;
	va_start(ap, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_close)
		__sanitizer_syscall_pre_impl_close(a[0]);
	return libc_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
