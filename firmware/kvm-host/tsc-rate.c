/* Prints how many thousand ticks a second this processor's time stamp counter makes. QEMU gives its guests the same counter.
   A thread that is taken off the processor between two readings makes one measurement wrong: of five the middle one counts. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#define MEASUREMENTS 5

struct reading {
    uint64_t ticks;
    int64_t nanoseconds;
};

static struct reading read_both(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (struct reading){ __rdtsc(), now.tv_sec * INT64_C(1000000000) + now.tv_nsec };
}

static int compare(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

int main(void)
{
    uint64_t rates[MEASUREMENTS];
    struct timespec pause = { .tv_nsec = 10000000 };
    for (int i = 0; i < MEASUREMENTS; i++) {
        struct reading start = read_both();
        nanosleep(&pause, NULL);
        struct reading end = read_both();
        rates[i] = (end.ticks - start.ticks) * 1000000 / (uint64_t)(end.nanoseconds - start.nanoseconds);
    }
    qsort(rates, MEASUREMENTS, sizeof rates[0], compare);
    printf("%llu\n", (unsigned long long)rates[MEASUREMENTS / 2]);
    return 0;
}
