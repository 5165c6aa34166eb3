// Touches a file that is mapped into the guest, while interrupts are off: KVM then tells the VMM of a page that is not there, as it does for a
// guest without asynchronous page faults. The first virtio-mmio slot has a virtio-fs device with a window, and a file named "file".
// Maps the file's first 2 MiB and does what it reads on the serial port:
//   r  reads a byte of the second page, and says what it was
//   w  writes one there
//   n  reads a byte of the window where no file is
//   o  opens the file until that is an error, and says how often it could and what the error was
//   q  switches the machine off
#include "c/fuse.h"
#include "c/virtio.h"

#define MAPPED (2UL << 20)
#define PAGE 4096
#define MOST_OPENINGS 100000

static volatile struct {
    struct ring high_priority, ring;
    struct fuse_header header;
    union fuse_arguments arguments;
    struct fuse_answer answer;
} shared;
static uint16_t seen; // of the used ring

static __attribute__((noreturn)) void fail(const char *what, uint64_t number)
{
    print_number(what, number);
    print("\n");
    power_off();
}

static uint64_t virtio_read_address(unsigned offset) { return *virtio_register(offset) | (uint64_t)*virtio_register(offset + 4) << 32; }

static void set_descriptor(unsigned index, volatile void *buffer, uint32_t length, int flags)
{
    shared.ring.descriptors[index].address = (uint64_t)buffer;
    shared.ring.descriptors[index].length = length;
    shared.ring.descriptors[index].flags = flags;
    shared.ring.descriptors[index].next = index + 1;
}

// One request, and its answer's error number.
static int ask(uint32_t operation, uint64_t node, uint32_t length)
{
    fuse_set_header(&shared.header, operation, node, length);
    set_descriptor(0, &shared.header, sizeof shared.header, DESCRIPTOR_NEXT);
    set_descriptor(1, &shared.arguments, length, DESCRIPTOR_NEXT);
    set_descriptor(2, &shared.answer, sizeof shared.answer, DESCRIPTOR_WRITE);
    shared.ring.available.heads[seen % RING_SIZE] = 0;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    shared.ring.available.index = seen + 1;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    *virtio_register(VIRTIO_QUEUE_NOTIFY) = 1;
    while (shared.ring.used.index == seen)
        wait_for_interrupt();
    seen++;
    return -shared.answer.error;
}

static uint64_t node; // the file

static void open_often(void)
{
    uint64_t count = 0;
    int error;
    do {
        shared.arguments.open.flags = 0;
        shared.arguments.open.open_flags = 0;
        error = ask(FUSE_OPEN, node, sizeof shared.arguments.open);
    } while (error == 0 && ++count < MOST_OPENINGS);
    print_number("opened ", count);
    print_number(" times, then error ", error);
    print("\n");
}

static volatile char *map_file(void)
{
    *virtio_register(VIRTIO_SHM_SEL) = 0;
    uint64_t length = virtio_read_address(VIRTIO_SHM_LEN), base = virtio_read_address(VIRTIO_SHM_BASE);
    if (length < 2 * MAPPED || length == UINT64_MAX)
        fail("no window: ", length);
    virtio_reset();
    virtio_set_up_queue(0, &shared.high_priority);
    virtio_set_up_queue(1, &shared.ring);
    virtio_start();
    int error = ask(FUSE_INIT, 0, fuse_set_init(&shared.arguments));
    if (error == 0)
        error = ask(FUSE_LOOKUP, FUSE_ROOT, fuse_set_name(&shared.arguments));
    if (error != 0)
        fail("no file: ", error);
    node = shared.answer.lookup.node;
    shared.arguments.map.handle = UINT64_MAX; // none
    shared.arguments.map.offset = 0;
    shared.arguments.map.length = MAPPED;
    shared.arguments.map.flags = FUSE_SETUPMAPPING_READ;
    shared.arguments.map.window_offset = 0;
    error = ask(FUSE_SETUPMAPPING, node, sizeof shared.arguments.map);
    if (error != 0)
        fail("not mapped: ", error);
    return (volatile char *)base;
}

void main(const uint8_t *boot_params)
{
    (void)boot_params;
    volatile char *window = map_file();
    print("mapped\n");
    for (;;) {
        switch (read_input()) {
        case 'r':
            print_number("read ", window[PAGE]);
            print("\n");
            break;
        case 'w':
            window[PAGE] = 'w';
            print("written\n");
            break;
        case 'n':
            print_number("read nothing: ", window[MAPPED]);
            print("\n");
            break;
        case 'o':
            open_often();
            break;
        case 'q':
            power_off();
        default:
            print("what?\n");
        }
    }
}
