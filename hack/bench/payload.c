/* What runs inside the benchmark's containers: it ends at once (-DTRUE) or never, with 999 children
 * (-DCROWD) or alone. Without a C library, because its start-up would be a large part of what is measured. */
#if defined __x86_64__
#define EXIT 231
#define WAIT 271 /* ppoll */
#define CLONE 56
static long call(long n, long a)
{
	long ret;
	register long r10 __asm__("r10") = 0, r8 __asm__("r8") = 0;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(0L), "d"(0L), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
	return ret;
}
#elif defined __aarch64__
#define EXIT 94
#define WAIT 73
#define CLONE 220
static long call(long n, long a)
{
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = 0;
	register long x2 __asm__("x2") = 0, x3 __asm__("x3") = 0, x4 __asm__("x4") = 0;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
	return x0;
}
#else
#error "no payload for this architecture"
#endif

void _start(void)
{
#ifdef CROWD
	for (int i = 0; i < 999 && call(CLONE, 17 /* SIGCHLD */); i++)
		;
#endif
#ifndef TRUE
	for (;;)
		call(WAIT, 0);
#endif
	call(EXIT, 0);
	for (;;)
		;
}
