/* Functions that one compiler puts into their callers, or takes for the same, and another does not. */
#include "toy.h"

static volatile long seen;

/* Within its callers, or not at all. */
static long inner(long n)
{
	seen += n;
	return seen * 3;
}

static long outer(long n)
{
	return inner(n) + inner(n + 1);
}

/* A function of its own for the sake of the table, where nobody calls it; and within its caller. */
static long both(long n)
{
	seen ^= n;
	return n - 7;
}

/* The same code: one is enough. */
static __attribute__((__noinline__)) long one(long n)
{
	seen += 5;
	return n;
}

static __attribute__((__noinline__)) long two(long n)
{
	seen += 5;
	return n;
}

noinline long cold_way(long n)
{
	return say("never\n") + n;
}

long (*const volatile entries[])(long) = { both, one, two };

long shapes(long n)
{
	if (n > 100)
		return cold_way(n);
	return outer(n) + both(n) + entries[1](n) + entries[2](n);
}
