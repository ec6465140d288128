/* As much of a C library for i386 as shared.c asks for; functions take arguments in registers, as in a kernel. */
#include <stdarg.h>

int main(int argc, char **argv);

static int sys(int n, int a, const void *b, int c)
{
	int ret;
	asm volatile("int $0x80" : "=a"(ret) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

static void number(int value)
{
	char digits[12], *p = digits + sizeof(digits);
	unsigned left = value < 0 ? -value : value;
	do {
		*--p = '0' + left % 10;
		left /= 10;
	} while (left);
	if (value < 0)
		*--p = '-';
	sys(4, 1, p, digits + sizeof(digits) - p);
}

int printf(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	for (; *format; format++) {
		if (format[0] == '%' && format[1] == 'd') {
			number(va_arg(arguments, int));
			format++;
		} else {
			sys(4, 1, format, 1);
		}
	}
	va_end(arguments);
	return 0;
}

__attribute__((used)) static void begin(int *stack)
{
	sys(1, main(stack[0], (char **)(stack + 1)), 0, 0);
}

asm(".globl _start\n_start: mov %esp, %eax\nand $-16, %esp\ncall begin\nhlt\n");
