#include "toy.h"

/* A weak definition that the strong one in two.c replaces. */
__attribute__((weak)) noinline int clock_read(void)
{
	return 1;
}

static noinline int twin(int x)
{
	EX_ENTRY(2);
	return x + 1;
}

noinline int kept_twin(int x)
{
	return twin(x) + 10;
}

/* Only cold code uses these. */
int cold_counter = 7;
static const char cold_text[] = "only cold code says this";

noinline int cold_one(int x)
{
	EX_ENTRY(3);
	EX_ENTRY(4);
	BUG_ENTRY(33);
	return say(cold_text) + cold_counter + x;
}

/* The table loses an entry before this one. */
noinline int own_entry(void)
{
	struct { int addr, file; unsigned short line, flags; } *entry;
	NAMED_ENTRY(entry, 77);
	return entry->line;
}

/* The unlikely half of a function, in a section of its own, as gcc -O2 makes it. */
static noinline __attribute__((section(".text.unlikely.hot_with_tail"))) int hot_tail(int x)
{
	return x - 100;
}

noinline int hot_with_tail(int x)
{
	if (x < 0)
		return hot_tail(x);
	return x + 3;
}

/* Function pointers that are compared: dropped ones must stay apart. */
int (*volatile table[])(int) = { cold_one, cold_two, native_clock, sched_clock };
