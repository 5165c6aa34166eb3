// What a payload says to a virtio-fs device (Linux include/uapi/linux/fuse.h): a request's header and arguments, and the answer's.
#pragma once
#include <stdint.h>

#define FUSE_LOOKUP 1
#define FUSE_OPEN 14
#define FUSE_READ 15
#define FUSE_WRITE 16
#define FUSE_INIT 26
#define FUSE_SETUPMAPPING 48
#define FUSE_BIG_WRITES (1 << 5)
#define FUSE_SETUPMAPPING_WRITE 1
#define FUSE_SETUPMAPPING_READ 2
#define FUSE_ROOT 1
#define O_RDWR 2

struct fuse_header {
    uint32_t length, operation;
    uint64_t unique, node;
    uint32_t user, group, process, padding;
};

union fuse_arguments {
    struct {
        uint64_t handle, offset;
        uint32_t size, flags;
        uint64_t owner;
        uint32_t open_flags, padding;
    } move;
    struct {
        uint64_t handle, offset, length, flags, window_offset;
    } map;
    struct {
        uint32_t major, minor, readahead, flags;
    } init;
    struct {
        uint32_t flags, open_flags;
    } open;
    char name[5];
};

struct fuse_answer {
    uint32_t length;
    int32_t error;
    uint64_t unique;
    union {
        struct {
            uint64_t node, generation, valid[3], inode, size;
        } lookup;
        uint64_t handle;
        uint8_t rest[128];
    };
};

static inline void fuse_set_header(volatile struct fuse_header *header, uint32_t operation, uint64_t node, uint32_t length)
{
    header->length = sizeof *header + length;
    header->operation = operation;
    header->unique = 1;
    header->node = node;
}

static inline uint32_t fuse_set_name(volatile union fuse_arguments *arguments)
{
    for (unsigned i = 0; i < sizeof arguments->name; i++)
        arguments->name[i] = "file"[i];
    return sizeof arguments->name;
}

static inline uint32_t fuse_set_init(volatile union fuse_arguments *arguments)
{
    arguments->init.major = 7;
    arguments->init.minor = 31;
    arguments->init.readahead = 0;
    arguments->init.flags = FUSE_BIG_WRITES;
    return sizeof arguments->init;
}
