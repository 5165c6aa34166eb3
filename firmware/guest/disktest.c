// Works a disk, in one process: starting programs takes too long in the emulated KVM host.
//   disktest fill FILE MIB      writes a file, reads it back past the caches and compares
//   disktest scattered DEVICE PIECES
//                               writes and reads back one request whose pieces of 4 KiB are no neighbours in memory
//   disktest stamps DEVICE MIB [DEPTH]
//                               writes and reads back blocks of 4 KiB, DEPTH requests at a time (1), until a line comes in; then
//                               reads all of them again. Each block holds its number and how often it was written.
// Prints NAME=VALUE lines, and ends with status 1 and a message at the first thing that is not as it should be.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1UL << 20)
#define BLOCK 4096
#define WORDS (BLOCK / sizeof(uint64_t))
#define REPORT 64 // blocks between two lines
#define MAX_PIECES 256

// Every word of a block is different, and in every block and version.
static void stamp(uint64_t *words, uint64_t block, uint64_t version)
{
    for (uint64_t i = 0; i < WORDS; i++)
        words[i] = (block << 32 | version << 9 | i) * 0x9E3779B97F4A7C15ULL;
}

static void compare(const uint64_t *found, const uint64_t *expected, uint64_t block, uint64_t version)
{
    for (uint64_t i = 0; i < WORDS; i++) {
        if (found[i] != expected[i])
            fail("block %lu, version %lu: word %lu is %016lx and not %016lx", block, version, i, found[i], expected[i]);
    }
}

static void *aligned(size_t size)
{
    void *memory = aligned_alloc(BLOCK, size);
    if (!memory)
        fail("no memory");
    return memory;
}

static void fill(const char *path, uint64_t mib)
{
    uint64_t *data = aligned(MIB), *found = aligned(MIB);
    double start = now();
    int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0)
        fail("open %s", path);
    for (uint64_t i = 0; i < mib; i++) {
        for (uint64_t block = 0; block < MIB / BLOCK; block++)
            stamp(data + block * WORDS, i * (MIB / BLOCK) + block, 1);
        if (write(file, data, MIB) != (ssize_t)MIB)
            fail("write of MiB %lu", i);
    }
    if (fsync(file) < 0)
        fail("fsync");
    printf("written=%.1f\n", now() - start);
    start = now();
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    lseek(file, 0, SEEK_SET);
    for (uint64_t i = 0; i < mib; i++) {
        if (read(file, found, MIB) != (ssize_t)MIB)
            fail("read of MiB %lu", i);
        for (uint64_t block = 0; block < MIB / BLOCK; block++) {
            uint64_t number = i * (MIB / BLOCK) + block;
            stamp(data, number, 1);
            compare(found + block * WORDS, data, number, 1);
        }
    }
    printf("verified=%.1f\n", now() - start);
}

static void scattered(const char *path, uint64_t pieces)
{
    static struct iovec vectors[MAX_PIECES];
    char *memory = aligned(2 * MAX_PIECES * BLOCK);
    uint64_t *expected = aligned(BLOCK);
    if (pieces > MAX_PIECES)
        fail("at most %d pieces", MAX_PIECES);
    for (uint64_t i = 0; i < pieces; i++) {
        vectors[i] = (struct iovec){memory + 2 * i * BLOCK, BLOCK};
        stamp(vectors[i].iov_base, i, 1);
    }
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0)
        fail("open %s", path);
    if (pwritev(file, vectors, pieces, 0) != (ssize_t)(pieces * BLOCK))
        fail("write of %lu pieces", pieces);
    memset(memory, 0, 2 * MAX_PIECES * BLOCK);
    if (preadv(file, vectors, pieces, 0) != (ssize_t)(pieces * BLOCK))
        fail("read of %lu pieces", pieces);
    for (uint64_t i = 0; i < pieces; i++) {
        stamp(expected, i, 1);
        compare(vectors[i].iov_base, expected, i, 1);
    }
    printf("scattered=%lu\n", pieces);
}

// Works the blocks from first on, before end. Only the first of several says how it goes.
static void stamp_part(const char *path, uint64_t first, uint64_t end)
{
    uint64_t *data = aligned(BLOCK), *found = aligned(BLOCK);
    uint64_t count = end - first, writes = 0;
    uint32_t *versions = calloc(count, sizeof *versions);
    double slowest = 0;
    int file = open(path, O_RDWR | O_DIRECT);
    if (file < 0 || !versions)
        fail("open %s", path);
    struct pollfd input = {.fd = 0, .events = POLLIN}; // which nobody reads, so all of them see it
    for (uint64_t i = 0; poll(&input, 1, 0) == 0; i = (i + 7919) % count, writes++) {
        double start = now();
        stamp(data, first + i, ++versions[i]);
        if (pwrite(file, data, BLOCK, (first + i) * BLOCK) != BLOCK)
            fail("write of block %lu", first + i);
        if (pread(file, found, BLOCK, (first + i) * BLOCK) != BLOCK)
            fail("read of block %lu", first + i);
        compare(found, data, first + i, versions[i]);
        slowest = now() - start > slowest ? now() - start : slowest;
        if (first == 0 && writes % REPORT == 0)
            printf("progress=%lu\n", writes);
    }
    for (uint64_t i = 0; i < count; i++) {
        if (versions[i] == 0)
            continue;
        stamp(data, first + i, versions[i]);
        if (pread(file, found, BLOCK, (first + i) * BLOCK) != BLOCK)
            fail("read of block %lu", first + i);
        compare(found, data, first + i, versions[i]);
    }
    if (first == 0)
        printf("slowest=%.3f\nwrites=%lu\n", slowest, writes);
}

static void stamps(const char *path, uint64_t mib, uint64_t depth)
{
    uint64_t blocks = mib * (MIB / BLOCK);
    for (uint64_t part = 1; part < depth; part++) {
        pid_t child = fork();
        if (child < 0)
            fail("fork");
        if (child == 0) {
            stamp_part(path, blocks * part / depth, blocks * (part + 1) / depth);
            exit(0);
        }
    }
    stamp_part(path, 0, blocks / depth);
    for (int status; wait(&status) > 0;) {
        if (status != 0)
            exit(1);
    }
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 4 && strcmp(arguments[1], "fill") == 0)
        fill(arguments[2], strtoull(arguments[3], NULL, 0));
    else if (count == 4 && strcmp(arguments[1], "scattered") == 0)
        scattered(arguments[2], strtoull(arguments[3], NULL, 0));
    else if ((count == 4 || count == 5) && strcmp(arguments[1], "stamps") == 0)
        stamps(arguments[2], strtoull(arguments[3], NULL, 0), count == 5 ? strtoull(arguments[4], NULL, 0) : 1);
    else {
        fprintf(stderr, "usage: disktest fill FILE MIB | scattered DEVICE PIECES | stamps DEVICE MIB [DEPTH]\n");
        return 2;
    }
    return 0;
}
