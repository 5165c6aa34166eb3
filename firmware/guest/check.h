// What the programs that test in the guest share: the end at the first thing that is not as it should be, the time, and random numbers.
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...)
{
    int error = errno;
    va_list arguments;
    va_start(arguments, format);
    printf("%s: ", program_invocation_short_name);
    vprintf(format, arguments);
    printf(" (errno %d: %s)\n", error, strerror(error));
    exit(1);
}

// In seconds.
static inline double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

// xorshift64*: the same numbers for the same seed everywhere. The seed is not 0.
static inline uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1DULL;
}
