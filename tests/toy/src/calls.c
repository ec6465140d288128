/* System calls in small, as arch/x86/include/asm/syscall_wrapper.h makes them, and the ways that lead on. */
#define HERE __attribute__((noinline))
#define __init __attribute__((section(".init.text"), noinline))
#define BODY(n) asm volatile("" : : "i"(n))

struct operations { long (*open)(void), (*close)(void); };

HERE long leaf(void) { BODY(1); return 1; }
HERE long odd(long n);
HERE long even(long n) { BODY(2); return n ? odd(n - 1) : 1; }
HERE long odd(long n) { BODY(3); return n ? even(n - 1) : leaf(); }
HERE long by_address(void) { BODY(4); return leaf(); }
HERE long by_table(void) { BODY(5); return 5; }
HERE long by_table_of_table(void) { BODY(6); return 6; }
HERE long registered(void) { BODY(7); return 7; }
HERE long unreached(void) { BODY(8); return 8; }
/* What a compiler makes of a function besides it. */
HERE long cloned(long n) { BODY(9); return n; }
HERE long cloned_part(long n) asm("cloned.part.0");
HERE long cloned_part(long n) { BODY(10); return n; }

long (*volatile sink)(void);
struct operations inner = { by_table_of_table, 0 };
struct { struct operations *volatile next; long (*volatile call)(void); } outer = { &inner, by_table };
struct operations late = { registered, 0 }, *volatile somebody;

void __init register_it(void) { somebody = &late; }

long __x64_sys_ni_syscall(void) { return -38; }
__attribute__((weak)) long __x64_sys_absent(void) { return -38; }
long __x64_sys_read(void) { BODY(11); return even(4) + cloned(1) + cloned_part(1); }
long __x64_sys_open(void) { BODY(12); sink = by_address; return outer.call() + outer.next->open(); }
long __x64_sys_ioctl(void) { BODY(13); return somebody->open() + 1; }
/* Of another file, in a kernel: the dispatcher knows nothing of it. */
__attribute__((noipa)) long __x64_sys_umask(void) { BODY(14); return 2; }
long __x64_sys_old(void) { BODY(15); return unreached(); }
long __ia32_sys_read(void) { BODY(16); return even(5) + 1; }

long x64_sys_call(unsigned number)
{
	switch (number) {
	case 0: return __x64_sys_read();
	case 1: return __x64_sys_open();
	case 2: return __x64_sys_ioctl();
	case 3: return __x64_sys_umask();
	case 4: return __x64_sys_absent();
	default: return __x64_sys_ni_syscall();
	}
}

long ia32_sys_call(unsigned number) { return number ? __x64_sys_ni_syscall() : __ia32_sys_read(); }
