// Shows whether anybody writes to the memory of a guest that was reset with requests in flight. The first virtio-mmio slot has a disk or a
// virtio-fs device with a file named "file"; "mib=N" on the command line is how much memory is looked at.
// Says at each start whether that memory is zero, fills it with a pattern, and does what it reads on the serial port:
//   c  says whether the pattern is unchanged
//   w  reads and writes the disk or the file at random places with DEPTH requests in flight, rings and requests in that memory, too;
//      says when they are in flight and when the first was given back, and resets the machine at the next input
//   q  switches the machine off
#include "c/fuse.h"
#include "c/virtio.h"

#define MEMORY 0x4000000UL
#define MIB (1UL << 20)
#define BLOCK 4096UL
#define SECTOR 512UL
#define DEPTH 32
#define MAX_BLOCKS 32 // of a request
#define WRITE_EVERY 8 // requests, one of which is a write

#define DEVICE_DISK 2
#define DEVICE_FILE_SYSTEM 26

// What a request has beside its data: for a disk a header of 16 bytes and a status (VIRTIO 1.2 §5.2.6).
struct request {
    union {
        struct {
            uint32_t type, reserved;
            uint64_t sector;
        } disk;
        struct fuse_header file;
    } header;
    union fuse_arguments arguments;
    union {
        uint8_t status;
        struct fuse_answer file;
    } answer;
};

// At the start of the memory; the data of requests is behind it.
struct shared {
    struct ring high_priority, ring;
    struct request requests[DEPTH];
};

static volatile struct shared *const shared = (volatile struct shared *)MEMORY;
static uint64_t *const words = (uint64_t *)MEMORY;
static uint64_t word_count, data_blocks, disk_blocks, node, handle, seed;
static uint16_t seen; // of the used ring
static unsigned queue;
static int is_file_system;

static __attribute__((noreturn)) void fail(const char *what, uint64_t number)
{
    print_number(what, number);
    print("\n");
    power_off();
}

static uint64_t next_random(void)
{
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return seed;
}

// Different in every word, and never zero.
static uint64_t pattern(uint64_t word) { return (word + 1) * 0x9E3779B97F4A7C15UL; }

static void compare(const char *same, const char *different, int with_pattern)
{
    uint64_t count = 0, first = 0;
    for (uint64_t i = 0; i < word_count; i++) {
        if (words[i] != (with_pattern ? pattern(i) : 0) && count++ == 0)
            first = i;
    }
    if (count == 0) {
        print(same);
        return;
    }
    print(different);
    print_number(": words ", count);
    print_number(", the first at ", (uint64_t)&words[first]);
    print_number(" is ", words[first]);
    print("\n");
}

// Fills in the next descriptor of request SLOT, whose descriptors are 4 in a row.
static void add(unsigned slot, unsigned *count, volatile void *buffer, uint32_t length, int flags)
{
    unsigned index = 4 * slot + *count;
    if (*count > 0) {
        shared->ring.descriptors[index - 1].flags |= DESCRIPTOR_NEXT;
        shared->ring.descriptors[index - 1].next = index;
    }
    shared->ring.descriptors[index].address = (uint64_t)buffer;
    shared->ring.descriptors[index].length = length;
    shared->ring.descriptors[index].flags = flags;
    ++*count;
}

static void make_available(unsigned slot)
{
    uint16_t index = shared->ring.available.index;
    shared->ring.available.heads[index % RING_SIZE] = 4 * slot;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    shared->ring.available.index = index + 1;
}

static void kick(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *virtio_register(VIRTIO_QUEUE_NOTIFY) = queue;
}

static void move_data(unsigned slot)
{
    volatile struct request *request = &shared->requests[slot];
    uint64_t blocks = next_random() % MAX_BLOCKS + 1, length = blocks * BLOCK;
    int is_write = next_random() % WRITE_EVERY == 0;
    uint64_t at = next_random() % (disk_blocks - MAX_BLOCKS) * BLOCK;
    char *data = (char *)MEMORY + MIB + next_random() % (data_blocks - MAX_BLOCKS) * BLOCK;
    unsigned count = 0;
    if (!is_file_system) {
        request->header.disk.type = is_write;
        request->header.disk.sector = at / SECTOR;
        request->answer.status = 0xff;
        add(slot, &count, &request->header, sizeof request->header.disk, 0);
        add(slot, &count, data, length, is_write ? 0 : DESCRIPTOR_WRITE);
        add(slot, &count, &request->answer, sizeof request->answer.status, DESCRIPTOR_WRITE);
    } else {
        uint32_t answer = __builtin_offsetof(struct request, answer.file.rest) - __builtin_offsetof(struct request, answer);
        fuse_set_header(&request->header.file, is_write ? FUSE_WRITE : FUSE_READ, node, sizeof request->arguments.move + (is_write ? length : 0));
        request->arguments.move.handle = handle;
        request->arguments.move.offset = at;
        request->arguments.move.size = length;
        add(slot, &count, &request->header, sizeof request->header.file, 0);
        add(slot, &count, &request->arguments, sizeof request->arguments.move, 0);
        if (is_write)
            add(slot, &count, data, length, 0);
        add(slot, &count, &request->answer, is_write ? answer + sizeof(uint64_t) : answer, DESCRIPTOR_WRITE);
        if (!is_write)
            add(slot, &count, data, length, DESCRIPTOR_WRITE);
    }
    make_available(slot);
}

// The slot of a request that was given back, or -1.
static int take(void)
{
    if (shared->ring.used.index == seen)
        return -1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint32_t head = shared->ring.used.elements[seen++ % RING_SIZE].head;
    if (head % 4 != 0 || head / 4 >= DEPTH)
        fail("wrong head ", head);
    volatile struct request *request = &shared->requests[head / 4];
    if (is_file_system ? request->answer.file.error != 0 : request->answer.status != 0)
        fail("failed request: ", is_file_system ? -request->answer.file.error : request->answer.status);
    return head / 4;
}

// One request of a file system, and its answer.
static volatile struct request *ask(uint32_t operation, uint64_t of_node, uint32_t length)
{
    volatile struct request *request = &shared->requests[0];
    unsigned count = 0;
    fuse_set_header(&request->header.file, operation, of_node, length);
    add(0, &count, &request->header, sizeof request->header.file, 0);
    add(0, &count, &request->arguments, length, 0);
    add(0, &count, &request->answer, sizeof request->answer, DESCRIPTOR_WRITE);
    make_available(0);
    kick();
    while (take() < 0)
        wait_for_interrupt();
    return request;
}

static void open_file(void)
{
    volatile struct request *request = &shared->requests[0];
    ask(FUSE_INIT, 0, fuse_set_init(&request->arguments));
    ask(FUSE_LOOKUP, FUSE_ROOT, fuse_set_name(&request->arguments));
    node = request->answer.file.lookup.node;
    disk_blocks = request->answer.file.lookup.size / BLOCK;
    request->arguments.open.flags = O_RDWR;
    request->arguments.open.open_flags = 0;
    ask(FUSE_OPEN, node, sizeof request->arguments.open);
    handle = request->answer.file.handle;
}

static void start_device(void)
{
    uint32_t device = *virtio_register(VIRTIO_DEVICE_ID);
    if (device != DEVICE_DISK && device != DEVICE_FILE_SYSTEM)
        fail("neither a disk nor a file system: ", device);
    is_file_system = device == DEVICE_FILE_SYSTEM;
    for (uint64_t i = 0; i < sizeof *shared / sizeof *words; i++)
        words[i] = 0;
    virtio_reset();
    if (is_file_system)
        virtio_set_up_queue(queue++, &shared->high_priority);
    virtio_set_up_queue(queue, &shared->ring);
    virtio_start();
    if (is_file_system)
        open_file();
    else
        disk_blocks = *(volatile uint64_t *)virtio_register(VIRTIO_CONFIG) * SECTOR / BLOCK;
    if (disk_blocks < 2 * MAX_BLOCKS)
        fail("too small a disk: ", disk_blocks);
}

static __attribute__((noreturn)) void work(void)
{
    uint64_t done = 0;
    start_device();
    for (unsigned slot = 0; slot < DEPTH; slot++)
        move_data(slot);
    kick(); // once, so that a daemon that does what it finds at a time finds all
    print("working\n");
    while (!has_input()) {
        int slot = take();
        if (slot < 0) {
            wait_for_interrupt();
            continue;
        }
        move_data(slot);
        kick();
        if (done++ == 0)
            print("moved\n");
    }
    print_number("done ", done);
    print("\n");
    reset();
}

void main(const uint8_t *boot_params)
{
    uint64_t mib = number_option(boot_params, "mib");
    if (mib < 2)
        fail("mib=N is missing: ", mib);
    word_count = mib * MIB / sizeof *words;
    data_blocks = (mib - 1) * MIB / BLOCK;
    seed = __builtin_ia32_rdtsc() | 1;
    compare("zero\n", "not zero", 0);
    for (uint64_t i = 0; i < word_count; i++)
        words[i] = pattern(i);
    print("filled\n");
    for (;;) {
        switch (read_input()) {
        case 'c':
            compare("unchanged\n", "changed", 1);
            break;
        case 'w':
            work();
        case 'q':
            power_off();
        default:
            print("what?\n");
        }
    }
}
