#include "toy.h"

noinline int clock_read(void)
{
	return 42;
}

/* Two names of one function: they stand or fall together. */
noinline int native_clock(int x)
{
	return x + 6;
}
int sched_clock(int x) __attribute__((alias("native_clock")));

/* A local of the same name as the one in one.c, with another meaning. */
static noinline int twin(int x)
{
	EX_ENTRY(5);
	return x + 1000;
}

static int (*volatile by_pointer)(int) = twin;

noinline int cold_two(int x)
{
	BUG_ENTRY(55);
	return x + 2;
}

/* Not a function section: a root, whose reference to the local goes by section symbol. */
__attribute__((section(".noinstr.text"))) noinline int cold_twin_user(int x)
{
	return twin(x) + by_pointer(x);
}

long SYS(ni_syscall)(void)
{
	return -38;
}
long SYS(cold)(void)
{
	return 7;
}
long SYS(hot)(void)
{
	return 8;
}
