// A virtio-mmio device in the first slot, and a split ring (VIRTIO 1.2 §2.7, §4.2.2). Its interrupts end wait_for_interrupt().
#pragma once
#include "guest.h"

#define RING_SIZE 128
#define DESCRIPTOR_NEXT 1
#define DESCRIPTOR_WRITE 2 // by the device
#define STATUS_ACKNOWLEDGE_DRIVER 3
#define STATUS_FEATURES_OK 8
#define STATUS_DRIVER_OK 4
#define VERSION_1_HIGH 1 // bit 32 of the features

struct ring {
    struct {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[RING_SIZE];
    struct {
        uint16_t flags, index, heads[RING_SIZE], event;
    } available;
    _Alignas(4) struct {
        uint16_t flags, index;
        struct {
            uint32_t head, length;
        } elements[RING_SIZE];
        uint16_t event;
    } used;
};

static inline volatile uint32_t *virtio_register(unsigned offset) { return (volatile uint32_t *)(uintptr_t)(VIRTIO + offset); }

static inline void virtio_write_address(unsigned offset, const volatile void *address)
{
    *virtio_register(offset) = (uint32_t)(uintptr_t)address;
    *virtio_register(offset + 4) = (uint64_t)(uintptr_t)address >> 32;
}

// Resets the device and agrees on VIRTIO 1 without other features.
static inline void virtio_reset(void)
{
    *virtio_register(VIRTIO_STATUS) = 0;
    while (*virtio_register(VIRTIO_STATUS) != 0)
        ;
    *virtio_register(VIRTIO_STATUS) = STATUS_ACKNOWLEDGE_DRIVER;
    *virtio_register(VIRTIO_DRIVER_FEATURES_SEL) = 0;
    *virtio_register(VIRTIO_DRIVER_FEATURES) = 0;
    *virtio_register(VIRTIO_DRIVER_FEATURES_SEL) = 1;
    *virtio_register(VIRTIO_DRIVER_FEATURES) = VERSION_1_HIGH;
    *virtio_register(VIRTIO_STATUS) = STATUS_ACKNOWLEDGE_DRIVER | STATUS_FEATURES_OK;
}

static inline void virtio_set_up_queue(unsigned queue, volatile struct ring *ring)
{
    *virtio_register(VIRTIO_QUEUE_SEL) = queue;
    *virtio_register(VIRTIO_QUEUE_NUM) = RING_SIZE;
    virtio_write_address(VIRTIO_QUEUE_DESC, ring->descriptors);
    virtio_write_address(VIRTIO_QUEUE_DRIVER, &ring->available);
    virtio_write_address(VIRTIO_QUEUE_DEVICE, &ring->used);
    *virtio_register(VIRTIO_QUEUE_READY) = 1;
}

static inline void virtio_start(void)
{
    *virtio_register(VIRTIO_STATUS) = STATUS_ACKNOWLEDGE_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
}
