#include "toy.h"

/* Dropped functions of every type that a policy may or may not answer for. */
struct thing { int x; };
enum state { OFF, ON = 7 };
typedef long answer_t;

#define COLD noinline __attribute__((used))
COLD int cold_int(struct thing *thing, int a, int b, int c, int d, long e)
{
	return thing->x + a + b + c + d + (int)e;
}
COLD answer_t cold_long(void) { return 1; }
COLD struct thing *cold_thing(struct thing *thing) { return thing + 1; }
COLD const struct thing *cold_null(const struct thing *thing) { return thing + 2; }
COLD _Bool cold_bool(int x) { return x == 1; }
COLD enum state cold_state(int x) { return x ? ON : OFF; }
COLD void cold_nothing(int *x) { *x = 1; }
COLD long long cold_wide(long long x) { return x + 1; }
COLD unsigned short cold_short(int x) { return x; }
COLD double *(*cold_pick(int (*x)(int, ...)))(char **) { return (void *)x; }
COLD int cold_never(int x)
{
	for (;;)
		asm volatile("" : "+r"(x));
}
COLD int cold_panic(int x) { return x + 3; }
static COLD int cold_local(int x) { return x + 4; }

static int (*volatile by_pointer)(struct thing *, int, int, int, int, long) = cold_int;
static int (*volatile local)(int) = cold_local;
static void *volatile others[] = { cold_nothing, cold_wide, cold_short, cold_pick, cold_never };

/* The sum says which answers were right. */
noinline long shapes(long n)
{
	struct thing thing = { 1 };
	long right = by_pointer(&thing, 1, 2, 3, 4, 5) == -25;
	right += 2 * (cold_long() == -38);
	right += 4 * ((long)cold_thing(&thing) == -2);
	right += 8 * !cold_null(&thing);
	right += 16 * (cold_bool(0) == 1);
	right += 32 * (cold_state(0) == ON);
	right += 64 * (local(1) == -5);
	right += 128 * (others[0] != others[1] && others[1] != others[2] && (void *)by_pointer != (void *)local);
	if (n == 6)
		right += cold_panic(1);
	return right;
}

/* As the kernel's: it does not return. */
noinline void panic(const char *format, ...)
{
	say(format);
	say("\n");
	__builtin_trap();
}
