// Shows that nobody writes to the memory of a guest that was reset with requests in flight, in one process: starting programs takes too long in the
// emulated KVM host.
//   resettest FILE MIB SECONDS [DEPTH]
// fills MIB of memory with a pattern, looks after SECONDS whether it is unchanged, and waits for a line of input. After "reset" it reads and writes
// FILE (a block device, or a regular file) past the caches at random places, DEPTH requests (32) at a time, with the same memory as buffers, and
// resets the machine at once, while they are in flight. After any other line it ends with status 0.
// Prints NAME=VALUE lines, and ends with status 1 and a message at the first thing that is not as it should be.
#include "check.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define BLOCK 4096UL
#define MAX_BLOCKS 32UL        // of a request
#define WRITE_EVERY 8          // requests, one of which is a write
#define MAX_DEPTH 256
#define SOME_REQUESTS 400      // after these the machine is reset
#define SOME_SECONDS 2         // or after this time, if the requests take longer

static const char *path;
static uint64_t *memory, words, blocks, depth = 32;
static atomic_uint in_flight, done;

// Never what a disk of zeroes holds, and different in every word.
static uint64_t pattern(uint64_t word) { return (word + 1) * 0x9E3779B97F4A7C15UL; }

static uint64_t changed_words(uint64_t *first)
{
    uint64_t changed = 0;
    for (uint64_t i = 0; i < words; i++) {
        if (memory[i] != pattern(i) && changed++ == 0)
            *first = i;
    }
    return changed;
}

// A request after the other, each to a part of the memory that belongs to this thread.
static void *work(void *argument)
{
    uint64_t number = (uintptr_t)argument, part = words * sizeof *memory / BLOCK / depth, state = number + 0x2545F491;
    char *buffers = (char *)memory + number * part * BLOCK;
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0)
        fail("open %s", path);
    for (;;) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        uint64_t count = state % MAX_BLOCKS + 1;
        char *buffer = buffers + (state >> 8) % (part - MAX_BLOCKS) * BLOCK;
        off_t offset = (state >> 24) % (blocks - MAX_BLOCKS) * BLOCK;
        atomic_fetch_add(&in_flight, 1);
        ssize_t moved = state >> 60 < 16 / WRITE_EVERY ? pwrite(file, buffer, count * BLOCK, offset) : pread(file, buffer, count * BLOCK, offset);
        atomic_fetch_sub(&in_flight, 1);
        if (moved != (ssize_t)(count * BLOCK))
            fail("request of %lu blocks at %ld: %zd", count, (long)offset, moved);
        atomic_fetch_add(&done, 1);
    }
}

static void reset_at_work(void)
{
    int file = open(path, O_RDONLY);
    off_t size = file < 0 ? -1 : lseek(file, 0, SEEK_END);
    if (size < (off_t)(2 * MAX_BLOCKS * BLOCK))
        fail("%s has %ld bytes", path, (long)size);
    blocks = size / BLOCK;
    for (uint64_t i = 0; i < depth; i++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, work, (void *)i)) != 0)
            fail("thread");
    }
    for (double start = now(); now() - start < SOME_SECONDS && done < SOME_REQUESTS;)
        usleep(1000);
    unsigned least = depth > 1 ? depth / 2 : 1;
    while (in_flight < least)
        usleep(10);
    printf("done=%u\ninflight=%u\n", done, in_flight);
    tcdrain(STDOUT_FILENO);
    // Not reboot(2), which has each driver reset its device first.
    int trigger = open("/proc/sysrq-trigger", O_WRONLY);
    if (trigger < 0 || write(trigger, "b", 1) != 1)
        fail("sysrq");
    pause();
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count != 4 && count != 5) {
        fprintf(stderr, "usage: resettest FILE MIB SECONDS [DEPTH]\n");
        return 2;
    }
    path = arguments[1];
    uint64_t mib = strtoull(arguments[2], NULL, 0);
    unsigned seconds = strtoul(arguments[3], NULL, 0);
    if (count == 5)
        depth = strtoull(arguments[4], NULL, 0);
    words = mib * MIB / sizeof *memory;
    if (depth < 1 || depth > MAX_DEPTH || mib * MIB / BLOCK / depth <= MAX_BLOCKS)
        fail("%lu MiB are no buffers for %lu requests", mib, depth);
    memory = mmap(NULL, mib * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("%lu MiB of memory", mib);
    for (uint64_t i = 0; i < words; i++)
        memory[i] = pattern(i);
    printf("filled=%lu\n", mib);
    sleep(seconds);
    uint64_t first = 0, changed = changed_words(&first);
    if (changed > 0) {
        errno = 0;
        fail("%lu words of memory have changed; word %lu is %016lx and not %016lx", changed, first, memory[first], pattern(first));
    }
    printf("unchanged=%lu\n", mib);
    char line[16];
    if (!fgets(line, sizeof line, stdin))
        fail("input");
    if (strcmp(line, "reset\n") == 0)
        reset_at_work();
    return 0;
}
