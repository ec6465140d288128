#include "toy.h"

struct entry { int insn, fixup, tag; };
struct bug { int addr, file; unsigned short line, flags; };
extern const struct entry __start___ex_table[], __stop___ex_table[];
extern struct bug __start___bug_table[], __stop___bug_table[];
extern const int __start_orc_unwind_ip[], __stop_orc_unwind_ip[];
extern const short __start_orc_unwind[], __stop_orc_unwind[];
extern const int __start_runtime_ptr_limit[], __stop_runtime_ptr_limit[];
extern const int __start_runtime_shift_limit[], __stop_runtime_shift_limit[];
extern char _stext[], _etext[], __start_once[], __end_once[];

static char once_flag __attribute__((section(".data.once")));
int once_more = 5; /* .data.once_more: not of the group .data.once, whatever the script says of prefixes */

#ifdef __x86_64__
enum { WRITE = 1, SIGACTION = 13, EXIT = 60, FAULT_IP = 168 }; /* of struct ucontext: arch/x86/include/uapi/asm */
static long sys4(long n, long a, long b, long c, long d)
{
	register long r10 asm("r10") = d;
	long ret;
	asm volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}
asm(".section .head.text, \"ax\"\n.globl _start\n_start: mov (%rsp), %rdi\nand $-16, %rsp\ncall run\nhlt\n.previous\n");
#else
enum { WRITE = 4, SIGACTION = 174, EXIT = 1, FAULT_IP = 76 };
static long sys4(long n, long a, long b, long c, long d)
{
	long ret;
	asm volatile("int $0x80" : "=a"(ret) : "a"(n), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}
asm(".section .head.text, \"ax\"\n.globl _start\n_start: mov (%esp), %eax\nand $-16, %esp\ncall run\nhlt\n.previous\n");
#endif

noinline int say(const char *text)
{
	long n = 0;
	while (text[n])
		n++;
	return (int)sys4(WRITE, 1, (long)text, n, 0);
}

static noinline void say_number(const char *label, long value, int base)
{
	char digits[24], *p = digits + sizeof(digits);
	unsigned long left = value < 0 && base == 10 ? -value : value;
	*--p = 0;
	*--p = '\n';
	do {
		*--p = "0123456789abcdef"[left % base];
		left /= base;
	} while (left);
	if (value < 0 && base == 10)
		*--p = '-';
	say(label);
	say(p);
}

/* A miss is an invalid opcode: say where, as an oops would. */
static noinline void on_fault(int signal, void *info, char *context)
{
	(void)info;
	say_number(signal == 4 ? "missed " : "fault ", *(unsigned long *)(context + FAULT_IP), 16);
	sys4(EXIT, 3, 0, 0, 0);
}

static noinline void catch(int signal)
{
	struct { void *handler; unsigned long flags; void *restorer; unsigned long long mask; } action = {
		(void *)on_fault, 4 | 0x04000000, 0, 0 };
	sys4(SIGACTION, signal, (long)&action, 0, 8);
}

static noinline long strays(const int *first, const int *last)
{
	long found = 0;
	for (const int *p = first; p < last; p++) {
		char *at = (char *)p + *p;
		found += at < _stext || at >= _etext || IS_TRAP((unsigned char *)at);
	}
	return found;
}

static noinline void tables(void)
{
	long wrong = strays(__start_runtime_ptr_limit, __stop_runtime_ptr_limit)
		+ strays(__start_runtime_shift_limit, __stop_runtime_shift_limit);
	for (const struct entry *e = __start___ex_table; e < __stop___ex_table; e++) {
		char *at = (char *)&e->insn + e->insn;
		wrong += at < _stext || at >= _etext || IS_TRAP((unsigned char *)at);
	}
	for (struct bug *b = __start___bug_table; b < __stop___bug_table; b++) {
#ifdef __x86_64__
		char *at = (char *)&b->addr + b->addr, *file = (char *)&b->file + b->file;
#else
		char *at = (char *)b->addr, *file = (char *)b->file;
#endif
		wrong += at < _stext || at >= _etext || IS_TRAP((unsigned char *)at) || file[0] != 't';
	}
	say_number("exceptions ", __stop___ex_table - __start___ex_table, 10);
	say_number("bugs ", __stop___bug_table - __start___bug_table, 10);
	say_number("unwind ", (__stop_orc_unwind - __start_orc_unwind) / 3, 10);
	say_number("unwind ips ", __stop_orc_unwind_ip - __start_orc_unwind_ip, 10);
	say_number("pointers ", __stop_runtime_ptr_limit - __start_runtime_ptr_limit, 10);
	say_number("shifts ", __stop_runtime_shift_limit - __start_runtime_shift_limit, 10);
	say_number("wrong ", wrong, 10);
}

noinline void run(long argc)
{
	EX_ENTRY(1);
	BUG_ENTRY(11);
	catch(4);
	catch(11);
	say_number("clock ", clock_read(), 10);
	say_number("alias ", sched_clock(1), 10);
	say_number("twin ", kept_twin(1), 10);
	say_number("tail ", hot_with_tail(1), 10);
	say_number("own entry ", own_entry(), 10);
	say_number("same ", table[0] == table[1] || table[1] == table[2] || table[0] == table[2], 10);
	say_number("alias same ", table[2] == table[3], 10);
	say_number("null ", !table[0] || !table[1] || !table[2], 10);
	say_number("once ", once_more + once_flag, 10);
	say_number("once group ", __end_once - __start_once, 10);
	say_number("hot call ", SYS(hot)(), 10);
	tables();
	if (shapes)
		say_number("shapes ", shapes(argc), 10);
	if (argc == 2)
		say_number("cold call ", SYS(cold)(), 10);
	if (argc == 3)
		say_number("cold ", table[1](1), 10);
	if (argc == 4)
		say_number("cold twin ", cold_twin_user(1), 10);
	if (argc == 5)
		say_number("cold tail ", hot_with_tail(-1), 10);
	sys4(EXIT, 0, 0, 0, 0);
}
