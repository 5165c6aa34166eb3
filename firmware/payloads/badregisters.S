# A hostile driver: each register of each virtio-mmio device, in each state, with each width and alignment.

.include "hostile.inc"

.equ STATUS_STEPS, 1500
.equ NOTIFICATIONS, 20000
.equ REWRITES, 1000
.equ SWEPT, 0x120                   # the registers and the beginning of the configuration space
.equ PAGE_END, 0xff0

begin
    attack "registers", try_registers
    attack "race", try_race
    attack "status", try_status
    attack "queues", try_queues
    attack "hole", try_hole
    attack "rewrite", try_rewrite
    attack "notify", try_notify
    attack "config", try_config
    print "no such attack\n"
    jmp power_off

# Every register, in every state that a device can be in.
try_registers:
    mov $sweep_states, %eax
    jmp for_each_device

# The same while the other CPU writes to the registers, too.
try_race:
    movl $MEDDLE_WITH_REGISTERS, meddling
    mov $sweep_any_state, %eax
    jmp for_each_device

sweep_any_state:
    call place_queues               # in whatever state it is
    write_slot $STATUS_DRIVER_OK, VIRTIO_STATUS
    jmp sweep

sweep_states:
    call reset_device
    call sweep
    call reset_device
    write_slot $1, VIRTIO_STATUS
    call sweep
    call reset_device
    write_slot $STATUS_DRIVER, VIRTIO_STATUS
    write_slot $STATUS_DRIVER, VIRTIO_STATUS
    call sweep
    call negotiate
    call sweep
    call start_device
    call sweep
    write_slot $(STATUS_DRIVER_OK | STATUS_FAILED), VIRTIO_STATUS
    call sweep
    jmp reset_device

# Writes each value with each width to each offset, and reads it with each width. A status that is written as it has to be would
# end the state that this is about: try_status does that.
sweep:
    xor %ebx, %ebx
1:  xor %esi, %esi
2:  mov values(, %rsi, 8), %rax
    mov %al, (%r12, %rbx)
    mov %ax, (%r12, %rbx)
    cmp $VIRTIO_STATUS, %ebx
    je 3f
    mov %eax, (%r12, %rbx)
3:  mov %rax, (%r12, %rbx)
    mov (%r12, %rbx), %al
    mov (%r12, %rbx), %ax
    mov (%r12, %rbx), %eax
    mov (%r12, %rbx), %rax
    inc %esi
    cmp $VALUES, %esi
    jne 2b
    inc %ebx
    cmp $SWEPT, %ebx
    jne 4f
    mov $PAGE_END, %ebx
4:  cmp $VIRTIO_SLOT_SIZE, %ebx
    jne 1b
    ret

# The status in any order, and between them features and queues.
try_status:
    mov $status_steps, %eax
    jmp for_each_device

status_steps:
    mov $STATUS_STEPS, %r9d
1:  call next_random
    mov %rax, %rbx
    shr $3, %rbx
    and $7, %eax
    jz 2f
    dec %eax
    jz 3f
    dec %eax
    jz 4f
    and $7, %ebx
    movzbl statuses(%rbx), %ebx
    jmp 5f
2:  write_slot %ebx, VIRTIO_DRIVER_FEATURES
    write_slot %ebx, VIRTIO_DRIVER_FEATURES_SEL
    jmp 6f
3:  call place_queues
    and $MAX_QUEUES - 1, %ebx
    write_slot %ebx, VIRTIO_QUEUE_SEL
    write_slot $1, VIRTIO_QUEUE_READY
    jmp 6f
4:  call negotiate
    jmp 6f
5:  write_slot %ebx, VIRTIO_STATUS
6:  dec %r9d
    jnz 1b
    ret

# Queues that are not in memory, or have a size that none may have: the device must not start.
try_queues:
    movl $addresses, address_list
    movl $ADDRESSES, address_count
    mov $refuse_queues, %eax
    jmp for_each_device

# The same for a guest with 4 GiB of memory, 1 GiB of it above the hole.
try_hole:
    movl $hole_addresses, address_list
    movl $HOLE_ADDRESSES, address_count
    mov $refuse_queues, %eax
    jmp for_each_device

refuse_queues:
    xor %r13d, %r13d                # the queue
1:  xor %r14d, %r14d                # the address
2:  mov $VIRTIO_QUEUE_DESC, %r15d   # the area; they are 16 bytes apart
3:  call negotiate
    call place_queues
    write_slot %r13d, VIRTIO_QUEUE_SEL
    mov address_list, %eax
    mov (%rax, %r14, 8), %rax
    mov %eax, (%r12, %r15)
    shr $32, %rax
    mov %eax, 4(%r12, %r15)
    call expect_refusal
    add $VIRTIO_QUEUE_DRIVER - VIRTIO_QUEUE_DESC, %r15d
    cmp $VIRTIO_QUEUE_DEVICE, %r15d
    jbe 3b
    inc %r14d
    cmp address_count, %r14d
    jne 2b
    xor %r14d, %r14d
4:  call negotiate
    call place_queues
    write_slot %r13d, VIRTIO_QUEUE_SEL
    mov sizes(, %r14, 4), %eax
    write_slot %eax, VIRTIO_QUEUE_NUM
    call expect_refusal
    inc %r14d
    cmp $SIZES, %r14d
    jne 4b
    inc %r13d
    cmp queues, %r13d
    jne 1b
    jmp reset_device

expect_refusal:
    call launch
    test $STATUS_NEEDS_RESET, %eax
    jnz 1f
    print_value "queue ", %r13
    print_value ", area ", %r15
    print_value ", number ", %r14
    print "\n"
    wrong "a queue that cannot be was taken"
1:  write_slot $0, VIRTIO_QUEUE_NOTIFY
    ret

# The registers of queues whose device runs: nothing of it may have an effect.
try_rewrite:
    mov $rewrite, %eax
    jmp for_each_device

rewrite:
    call start_device
    mov $REWRITES, %r9d
1:  call next_random
    and $3, %eax
    write_slot %eax, VIRTIO_QUEUE_SEL
    call next_random
    and $7, %eax
    movzwl queue_registers(, %rax, 2), %ebx
    call next_random
    mov %eax, (%r12, %rbx)
    and $1, %eax
    mov %eax, (%r12, %rbx)
    dec %r9d
    jnz 1b
    cmpl $STATUS_DRIVER_OK, VIRTIO_STATUS(%r12)
    je 2f
    wrong "the device has stopped"
2:  call check_request
    jmp reset_device

# Notifications without end: of queues that there are not, of those that there are, and with a device that does not run.
try_notify:
    mov $notify, %eax
    jmp for_each_device

notify:
    call start_device
    call notify_any
    call reset_device
notify_any:
    mov $NOTIFICATIONS / 4, %r9d
1:  call next_random
    write_slot %eax, VIRTIO_QUEUE_NOTIFY
    write_slot $-1, VIRTIO_QUEUE_NOTIFY
    and $0xffff, %eax
    write_slot %eax, VIRTIO_QUEUE_NOTIFY
    and $1, %eax
    write_slot %eax, VIRTIO_QUEUE_NOTIFY
    dec %r9d
    jnz 1b
    ret

# The configuration space and its generation, to the end of the page and across it, and shared memory that there is not.
try_config:
    mov $configure, %eax
    jmp for_each_device

configure:
    call reset_device
    write_slot $1, VIRTIO_STATUS
    write_slot $STATUS_DRIVER, VIRTIO_STATUS
    call sweep_config
    call start_device
    call sweep_config
    call reset_device
    mov $-1, %ebx
1:  write_slot %ebx, VIRTIO_SHM_SEL
    cmpl $-1, VIRTIO_SHM_LEN(%r12)
    je 2f
    wrong "there is shared memory"
2:  add $0x1000001, %ebx            # from -1 on
    cmp $-0x1000000, %ebx
    jb 1b
    ret

sweep_config:
    mov $VIRTIO_CONFIG - 4, %ebx
1:  call next_random
    mov %al, (%r12, %rbx)
    mov %ax, (%r12, %rbx)
    mov %eax, (%r12, %rbx)
    mov %rax, (%r12, %rbx)
    movl $0, (%r12, %rbx)
    mov (%r12, %rbx), %rax
    inc %ebx
    cmp $VIRTIO_CONFIG + 256, %ebx
    jne 2f
    mov $VIRTIO_SLOT_SIZE - 16, %ebx
2:  cmp $VIRTIO_SLOT_SIZE, %ebx
    jne 1b
    ret

    .section .rodata
    .balign 8
values:
    .quad 0, 1, 0x80000000, -1
.equ VALUES, (. - values) / 8

# Of device registers, of interrupt controllers, of KVM's own pages; after the end of memory and across it; in the hole below 4 GiB and
# across its end; at the end of all addresses, where the ring's end wraps around; and not aligned.
addresses:
    .quad VIRTIO, VIRTIO + VIRTIO_SLOT_SIZE, IO_APIC, LOCAL_APIC, 0xfffbc000, 0xfffbd000
    .quad RAM_END - 4, RAM_END, 0xc0000000, 0xfffffff0, 0x100000000, 0x8000000000
    .quad 0x7ffffffffffffff0, 0x8000000000000000, -0x1000, -16, -4, buffer + 1
.equ ADDRESSES, (. - addresses) / 8

hole_addresses:
    .quad 0xc0000000 - 4, 0xc0000000, 0xfffffffc, 0x100000000 - 64, 0x140000000 - 4, 0x140000000
.equ HOLE_ADDRESSES, (. - hole_addresses) / 8

sizes:
    .long 0, 3, 6, 0x8001, 0x10000, 0x10010, 0x80000000, -1
.equ SIZES, (. - sizes) / 4

queue_registers:
    .word VIRTIO_QUEUE_NUM, VIRTIO_QUEUE_READY, VIRTIO_QUEUE_DESC, VIRTIO_QUEUE_DESC + 4
    .word VIRTIO_QUEUE_DRIVER, VIRTIO_QUEUE_DEVICE, VIRTIO_QUEUE_DEVICE + 4, VIRTIO_QUEUE_RESET
statuses:
    .byte 0, 1, STATUS_DRIVER, STATUS_FEATURES_OK, STATUS_DRIVER_OK, STATUS_NEEDS_RESET, STATUS_FAILED, 0xff

    .bss
address_list:
    .skip 4
address_count:
    .skip 4
