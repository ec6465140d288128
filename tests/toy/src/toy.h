/* What differs between the architectures: as the kernel has it on each. */
#ifdef __x86_64__
#define BUG_REL(place) place " - ."
#define UNWIND(tag)                                                                                       \
	".pushsection .orc_unwind_ip, \"a\"\n.long 1b - .\n.popsection\n"                                  \
	".pushsection .orc_unwind, \"a\"\n.short " #tag ", 0, 0\n.popsection\n"
#define IS_TRAP(at) ((at)[0] == 0xd6)
#define SYS(name) __x64_sys_##name
#define ADDRESS_OF(place) "lea " place "(%%rip), %0\n"
#define A "rax"
#else
#define BUG_REL(place) place
#define UNWIND(tag) ""
#define IS_TRAP(at) ((at)[0] == 0x0f && (at)[1] == 0x0b)
#define SYS(name) __ia32_sys_##name
#define ADDRESS_OF(place) "mov $" place ", %0\n"
#define A "eax"
#endif

/* Marks that a kernel leaves in its tables, in the kernel's own formats. */
#define CONSTANT(kind) ".pushsection runtime_" kind "_limit, \"a\"\n.long 1b - .\n.popsection\n"
#define EX_ENTRY(tag)                                                                                     \
	asm volatile("1: nop\n2:\n"                                                                       \
		     ".pushsection __ex_table, \"a\"\n.long 1b - ., 2b - ., " #tag "\n.popsection\n"      \
		     UNWIND(tag) CONSTANT("ptr"))
#define BUG_ENTRY(line)                                                                                   \
	asm volatile("1: nop\n.pushsection __bug_table, \"aw\"\n"                                         \
		     ".long " BUG_REL("1b") ", " BUG_REL("2f") "\n.short " #line ", 0\n.popsection\n"       \
		     ".pushsection .rodata.str1.1, \"aMS\", @progbits, 1\n2: .string \"toy.c\"\n.popsection\n" \
		     CONSTANT("shift"))
/* An entry that its own code names: WARN() of 7.x. */
#define NAMED_ENTRY(found, line)                                                                          \
	asm volatile(ADDRESS_OF("3f") "1: nop\n.pushsection __bug_table, \"aw\"\n3:\n"                    \
		     ".long " BUG_REL("1b") ", " BUG_REL("2f") "\n.short " #line ", 0\n.popsection\n"       \
		     ".pushsection .rodata.str1.1, \"aMS\", @progbits, 1\n2: .string \"toy.c\"\n.popsection\n" \
		     : "=r"(found))
#define noinline __attribute__((noinline, noclone))

int say(const char *text);
long shapes(long n) __attribute__((weak));
int clock_read(void);
int native_clock(int x);
int sched_clock(int x);
int kept_twin(int x);
int cold_twin_user(int x);
int cold_one(int x);
int cold_two(int x);
int hot_with_tail(int x);
int own_entry(void);
long SYS(ni_syscall)(void);
long SYS(cold)(void);
long SYS(hot)(void);
extern int (*volatile table[])(int);
