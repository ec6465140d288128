/* Functions of all shapes, to have their cold blocks taken out: which way they go depends on n alone. */
#include "toy.h"

/* More than a short branch jumps over. */
#define FAR asm volatile(".rept 48\nlea 1(%%" A "), %%" A "\n.endr" : : : A)

static volatile long seen;

noinline long pick(long n)
{
	switch (n) {
	case 1: return seen + 11;
	case 2: seen += 3; return n * seen;
	case 3: FAR; return 33;
	case 4: return kept_twin(4);
	case 5: for (long i = 0; i < 5; i++) seen += i; return seen;
	case 6: return 66 - seen;
	case 7: EX_ENTRY(7); return 77;
	case 8: return -8;
	default: return n << 3;
	}
}

noinline long loop(long n)
{
	long sum = 0;
	for (long i = 0; i < n; i++) {
		if (i % 4 == 3) {
			FAR;
			sum += 7 * i;
		} else if (i == 5) {
			BUG_ENTRY(55);
			sum -= hot_with_tail(1);
		}
		if (sum > 40)
			return sum * 3;
		sum++;
	}
	return sum;
}

noinline long go(long n)
{
	static const void *const labels[] = { &&first, &&second, &&third };
	goto *labels[n % 3];
first:
	seen += 100;
	return seen;
second:
	EX_ENTRY(8);
	return n + 2;
third:
	FAR;
	return n * 5;
}

noinline long deep(long n)
{
	if (n <= 0)
		return 1;
	if (n % 2)
		return deep(n - 2) + n;
	FAR;
	return deep(n - 1) * 2;
}

long shapes(long n)
{
	return pick(n) + 1000 * loop(n) + 1000000 * go(n) + 100000000 * deep(n % 6);
}
