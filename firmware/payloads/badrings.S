# A hostile driver: rings with contents that none may have, for each device's own back-end.

.include "hostile.inc"

.equ PATTERN_QUEUES, 3              # attacked of each device
.equ RANDOM_STARTS, 10
.equ RANDOM_KICKS, 10
.equ PACKETS, 5000
.equ FILLED, 64                     # bytes of a buffer that are random

.equ VSOCK_HEADER, 44
.equ GUEST_CID, 3
.equ HOST_CID, 2

.equ HEAD_COUNT, 2
.equ RING_DESCRIPTORS, 3
.equ TABLE_DESCRIPTORS, 2

begin
    attack "patterns", try_patterns
    attack "overlaps", try_overlaps
    attack "random", try_random
    attack "packed", try_packed
    attack "race", try_race
    attack "sockets", try_sockets
    print "no such attack\n"
    jmp power_off

# Each of the patterns below in each queue.
try_patterns:
    mov $pattern_device, %eax
    jmp for_each_device

pattern_device:
    xor %r13d, %r13d                # the queue
1:  mov $patterns, %r14d
2:  call start_device
    call write_pattern
    call kick_and_wait
    add $PATTERN_SIZE, %r14d
    cmp $patterns_end, %r14d
    jne 2b
    inc %r13d
    cmp queues, %r13d
    je 3f
    cmp $PATTERN_QUEUES, %r13d
    jne 1b
3:  jmp reset_device

# Sets RDI to the rings of queue R13.
rings_of_queue:
    mov %r13d, %edi
    imul $RING_SPACE, %edi
    add $rings, %edi
    ret

# Writes the pattern at R14 into queue R13.
write_pattern:
    call fill_buffer
    mov %r14d, %esi
    call rings_of_queue
    mov %edi, %ebx
    mov $RING_DESCRIPTORS * DESCRIPTOR_SIZE, %ecx
    rep movsb
    mov $table, %edi
    mov $TABLE_DESCRIPTORS * DESCRIPTOR_SIZE, %ecx
    rep movsb
    lea AVAILABLE + 4(%rbx), %edi
    mov $HEAD_COUNT * 2, %ecx
    rep movsb
    lodsw
    mov %ax, AVAILABLE + 2(%rbx)
    ret

# Kicks queue R13 and gives the back-end 1 ms to look at it.
kick_and_wait:
    write_slot %r13d, VIRTIO_QUEUE_NOTIFY
    mov $PM_TIMER_HZ / 1000, %ecx
    jmp wait_ticks

# A beginning of a request as the device has them, but for random fields.
fill_buffer:
    mov $buffer, %edi
    mov $FILLED / 8, %ecx
1:  call next_random
    stosq
    loop 1b
    call next_random
    cmpl $DEVICE_BLOCK, VIRTIO_DEVICE_ID(%r12)
    je 2f
    cmpl $DEVICE_VSOCK, VIRTIO_DEVICE_ID(%r12)
    je write_packet
    cmpl $DEVICE_FS, VIRTIO_DEVICE_ID(%r12)
    je write_fuse
    ret
2:  and $15, %eax
    mov %eax, buffer                # the request's type (VIRTIO 1.2 §5.2.6)
    call next_random
    test $1, %al
    jz 3f
    shr $1, %rax
    and $0xfff, %eax
    mov %rax, buffer + 8            # a sector that there may be
3:  ret

# A header of a packet for the host (VIRTIO 1.2 §5.10.6) from random number RAX, with any operation, ports, lengths and credit.
write_packet:
    movq $GUEST_CID, buffer
    movq $HOST_CID, buffer + 8
    mov %eax, %ecx
    and $0x3f, %ecx
    mov %ecx, buffer + 16           # the guest's port: few, so that some have a connection
    shr $6, %rax
    mov %eax, %ecx
    and $3, %ecx
    mov %ecx, buffer + 20           # the host's
    movl $0, buffer + 24            # the length
    shr $2, %rax
    test $7, %al
    jnz 1f
    movl $-1, buffer + 24
1:  shr $3, %rax
    movw $1, buffer + 28            # a stream
    and $7, %eax
    inc %eax
    mov %ax, buffer + 30            # the operation
    ret

# A header of a request to a file system (Linux include/uapi/linux/fuse.h, struct fuse_in_header) from random number RAX: any operation, on the root or on
# another node, with a length that is right or not.
write_fuse:
    mov %eax, %ecx
    and $0x3f, %ecx
    mov %ecx, buffer + 4            # the operation
    shr $6, %rax
    mov %eax, %ecx
    and $3, %ecx
    mov %rcx, buffer + 16           # the node
    shr $2, %rax
    test $7, %al
    jz 1f
    movl $FILLED, buffer            # the length
1:  ret

# Rings that lie on one another.
try_overlaps:
    mov $overlap_device, %eax
    jmp for_each_device

overlap_device:
    xor %r13d, %r13d
1:  xor %r15d, %r15d                # bits: which areas lie on the descriptors; 8: the device's on the driver's
2:  call negotiate
    call place_queues
    write_slot %r13d, VIRTIO_QUEUE_SEL
    call rings_of_queue
    test $1, %r15b
    jz 3f
    write_slot %edi, VIRTIO_QUEUE_DRIVER
3:  test $2, %r15b
    jz 4f
    write_slot %edi, VIRTIO_QUEUE_DEVICE
4:  test $4, %r15b
    jz 5f
    lea AVAILABLE(%rdi), %eax
    write_slot %eax, VIRTIO_QUEUE_DEVICE
5:  call launch
    mov $simple_pattern, %r14d
    call write_pattern
    mov $4, %ebp
6:  call rings_of_queue
    incw 2(%rdi)                    # wherever the index is
    incw AVAILABLE + 2(%rdi)
    call kick_and_wait
    dec %ebp
    jnz 6b
    inc %r15d
    cmp $8, %r15d
    jne 2b
    inc %r13d
    cmp queues, %r13d
    je 7f
    cmp $PATTERN_QUEUES, %r13d
    jne 1b
7:  jmp reset_device

# Descriptors, heads and indices at random.
try_random:
    mov $random_device, %eax
    jmp for_each_device

random_device:
    mov $RANDOM_STARTS, %ebp
1:  call start_device
    mov $RANDOM_KICKS, %r9d
2:  call next_random
    and $3, %eax
    xor %edx, %edx
    divl queues
    mov %edx, %r13d
    call fill_buffer
    call random_rings
    call kick_and_wait
    dec %r9d
    jnz 2b
    dec %ebp
    jnz 1b
    jmp reset_device

# Random rings for queue R13: descriptors that could be, for the most part.
random_rings:
    call rings_of_queue
    mov $QUEUE_SIZE, %ecx
1:  call next_random
    mov %rax, %rbx
    test $0xf, %bl
    mov $buffer, %eax
    jnz 2f
    call next_random                # anywhere
2:  mov %rax, (%rdi)
    shr $4, %rbx
    mov %ebx, %eax
    and $0x3ff, %eax
    test $0x7000, %ebx
    jnz 3f
    mov %rbx, %rax                  # of any length
3:  mov %eax, 8(%rdi)
    shr $16, %rbx
    mov %ebx, %eax
    and $0xf0007, %eax              # any flags, and one of the ring's descriptors next
    test $0xf00, %ebx
    jnz 4f
    mov %ebx, %eax
4:  mov %eax, 12(%rdi)
    add $DESCRIPTOR_SIZE, %edi
    loop 1b
    add $AVAILABLE - QUEUE_SIZE * DESCRIPTOR_SIZE, %edi
    mov $QUEUE_SIZE, %ecx
5:  call next_random
    and $QUEUE_SIZE - 1, %eax
    mov %ax, 2(%rdi, %rcx, 2)
    loop 5b
    call next_random
    mov %al, %cl
    and $7, %eax
    add %ax, 2(%rdi)
    test $0xf0, %cl
    jnz 6f
    call next_random
    mov %eax, (%rdi)                # any flags, any index
6:  ret

# The same with packed rings, of those devices that have them.
try_packed:
    mov $packed_device, %eax
    jmp for_each_device

packed_device:
    mov $RANDOM_STARTS, %ebp
1:  call negotiate
    call reset_device
    write_slot $1, VIRTIO_STATUS
    write_slot $STATUS_DRIVER, VIRTIO_STATUS
    write_slot $0, VIRTIO_DRIVER_FEATURES_SEL
    write_slot $(1 << 28), VIRTIO_DRIVER_FEATURES       # indirect descriptors
    write_slot $1, VIRTIO_DRIVER_FEATURES_SEL
    write_slot $(1 | 1 << (FEATURE_RING_PACKED - 32)), VIRTIO_DRIVER_FEATURES
    write_slot $STATUS_FEATURES_OK, VIRTIO_STATUS
    testl $STATUS_FEATURES_OK & ~STATUS_DRIVER, VIRTIO_STATUS(%r12)
    jz 4f                           # it has none
    call place_queues
    call launch
    mov $RANDOM_KICKS, %r9d
2:  call next_random
    and $3, %eax
    xor %edx, %edx
    divl queues
    mov %edx, %r13d
    call fill_buffer
    call random_rings
    call rings_of_queue
    mov $QUEUE_SIZE, %ecx
3:  call next_random
    and $0x8080, %eax               # available, used, or neither (VIRTIO 1.2 §2.8.1)
    or %ax, 14(%rdi)
    add $DESCRIPTOR_SIZE, %edi
    loop 3b
    call kick_and_wait
    dec %r9d
    jnz 2b
    dec %ebp
    jnz 1b
4:  jmp reset_device

# The same while the other CPU writes to the rings.
try_race:
    movl $MEDDLE_WITH_RINGS, meddling
    jmp try_random

# Packets for a back-end that has no room for its answers: the guest gives none.
try_sockets:
    mov $flood_device, %eax
    jmp for_each_device

flood_device:
    cmpl $DEVICE_VSOCK, VIRTIO_DEVICE_ID(%r12)
    jne 2f
    call start_device
    mov $1, %r13d                   # its transmit queue
    mov $PACKETS, %r9d
1:  call rings_of_queue
    mov $buffer, %eax
    mov %rax, (%rdi)
    movl $VSOCK_HEADER, 8(%rdi)
    movl $0, 12(%rdi)
    call next_random
    call write_packet
    incw AVAILABLE + 2(%rdi)
    write_slot %r13d, VIRTIO_QUEUE_NOTIFY
    mov $PM_TIMER_HZ / 20000, %ecx
    call wait_ticks
    dec %r9d
    jnz 1b
    jmp reset_device
2:  ret

# What follows in a pattern: descriptors of the ring, descriptors of the table, heads, and the index.
.macro descriptor address, length, flags=0, next=0
    .quad \address
    .long \length
    .word \flags, \next
.endm

.macro no_descriptors count
    .fill \count * DESCRIPTOR_SIZE
.endm

.macro heads first, second, index
    .word \first, \second, \index
.endm

    .section .rodata
    .balign 8
patterns:
    # A loop, of two and of one.
    descriptor buffer, 64, DESCRIPTOR_NEXT, 1
    descriptor buffer, 64, DESCRIPTOR_NEXT, 0
    no_descriptors 3
    heads 0, 0, 1
.equ PATTERN_SIZE, . - patterns
    descriptor buffer, 64, DESCRIPTOR_NEXT, 0
    no_descriptors 4
    heads 0, 0, 1
    # A loop of what the device writes.
    descriptor buffer, 64, DESCRIPTOR_NEXT|DESCRIPTOR_WRITE, 0
    no_descriptors 4
    heads 0, 0, 1
    # The next one is none of the ring's.
    descriptor buffer, 64, DESCRIPTOR_NEXT, 0xffff
    no_descriptors 4
    heads 0, 0, 1
    descriptor buffer, 64, DESCRIPTOR_NEXT|DESCRIPTOR_WRITE, QUEUE_SIZE
    no_descriptors 4
    heads 0, 0, 1
    # Neither is the head.
    descriptor buffer, 64
    no_descriptors 4
    heads 0xffff, QUEUE_SIZE, 2
    # The same one twice.
    descriptor buffer, 64
    descriptor buffer, 64, DESCRIPTOR_WRITE
    no_descriptors 3
    heads 0, 0, 2
    descriptor buffer, 64
    descriptor buffer, 64, DESCRIPTOR_WRITE
    no_descriptors 3
    heads 1, 1, 2
    # More than the ring has.
    descriptor buffer, 64
    no_descriptors 4
    heads 0, 0, 0x8000
    descriptor buffer, 64, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 0xffff
    # What the device reads after what it writes.
    descriptor buffer, 64, DESCRIPTOR_NEXT|DESCRIPTOR_WRITE, 1
    descriptor buffer, 64
    no_descriptors 3
    heads 0, 0, 1
    # A table in a table.
    descriptor table, 2*DESCRIPTOR_SIZE, DESCRIPTOR_INDIRECT
    no_descriptors 2
    descriptor table, DESCRIPTOR_SIZE, DESCRIPTOR_INDIRECT
    no_descriptors 1
    heads 0, 0, 1
    # A table that goes on, is a loop, has a next that is none of its own.
    descriptor table, 2*DESCRIPTOR_SIZE, DESCRIPTOR_INDIRECT|DESCRIPTOR_NEXT, 1
    descriptor buffer, 64
    no_descriptors 1
    descriptor buffer, 64
    no_descriptors 1
    heads 0, 0, 1
    descriptor table, 2*DESCRIPTOR_SIZE, DESCRIPTOR_INDIRECT
    no_descriptors 2
    descriptor buffer, 64, DESCRIPTOR_NEXT, 1
    descriptor buffer, 64, DESCRIPTOR_NEXT, 0
    heads 0, 0, 1
    descriptor table, 2*DESCRIPTOR_SIZE, DESCRIPTOR_INDIRECT
    no_descriptors 2
    descriptor buffer, 64, DESCRIPTOR_NEXT, 2
    no_descriptors 1
    heads 0, 0, 1
    # A table that is empty, of 4 GiB, of no whole descriptors, not in memory.
    descriptor table, 0, DESCRIPTOR_INDIRECT
    no_descriptors 4
    heads 0, 0, 1
    descriptor table, 0xfffffff0, DESCRIPTOR_INDIRECT
    no_descriptors 4
    heads 0, 0, 1
    descriptor table, DESCRIPTOR_SIZE+1, DESCRIPTOR_INDIRECT
    no_descriptors 4
    heads 0, 0, 1
    descriptor RAM_END-DESCRIPTOR_SIZE, 2*DESCRIPTOR_SIZE, DESCRIPTOR_INDIRECT
    no_descriptors 4
    heads 0, 0, 1
    # A buffer of 0 bytes, of 4 GiB, of all memory.
    descriptor buffer, 0
    no_descriptors 4
    heads 0, 0, 1
    descriptor buffer, 0, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 1
    descriptor buffer, -1
    no_descriptors 4
    heads 0, 0, 1
    descriptor buffer, -1, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 1
    descriptor buffer, 64, DESCRIPTOR_NEXT, 1
    descriptor 0, RAM_END, DESCRIPTOR_NEXT, 2
    descriptor buffer, 64, DESCRIPTOR_WRITE
    no_descriptors 2
    heads 0, 0, 1
    # A buffer across the end of memory, in device registers, in the hole, at the end of all addresses.
    descriptor RAM_END-16, 64, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 1
    descriptor VIRTIO, 64
    no_descriptors 4
    heads 0, 0, 1
    descriptor VIRTIO, 64, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 1
    descriptor 0xfffffff0, 64
    no_descriptors 4
    heads 0, 0, 1
    descriptor -16, 64, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 1
    # A buffer that is the ring of queue 0, the device's part of it too.
    descriptor rings, RING_SPACE, DESCRIPTOR_WRITE
    no_descriptors 4
    heads 0, 0, 1
    descriptor buffer, 16, DESCRIPTOR_NEXT, 1
    descriptor rings, RING_SPACE, DESCRIPTOR_WRITE
    no_descriptors 3
    heads 0, 0, 1
patterns_end:

# One buffer to read, one to write.
simple_pattern:
    descriptor buffer, 64, DESCRIPTOR_NEXT, 1
    descriptor buffer, 64, DESCRIPTOR_WRITE
    no_descriptors 3
    heads 0, 0, 0

    .bss
    .balign 16
table:
    .skip TABLE_DESCRIPTORS * DESCRIPTOR_SIZE
