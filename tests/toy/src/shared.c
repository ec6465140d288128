/* Functions that share a section and call one another, in every way that an assembler resolves by itself. */
int printf(const char *format, ...);

#define __init __attribute__((section(".init.text"), noinline, noclone))

static int __init three(int x) { return x * 3 + 1; }
int __init seven(int x) { return x > 100 ? x : three(x) * 7; }
static int __init tail(int x) { return seven(x + 1); }
static int (*const by_pointer[])(int) = { three, tail };
static int __init chosen(int x)
{
	switch (x) {
	case 0: return three(x);
	case 1: return 11 + tail(x);
	case 2: return seven(x) ^ 5;
	case 3: return x << 4;
	case 4: return by_pointer[1](x);
	case 5: return three(tail(x));
	default: return -1;
	}
}
int __init cold(int x) { return chosen(x) + 1; }

int main(int argc, char **argv)
{
	for (int i = 0; i < 8; i++)
		printf("%d %d %d\n", chosen(i), by_pointer[i & 1](i), argc > 1 ? cold(i) : seven(i));
	return 0;
}
