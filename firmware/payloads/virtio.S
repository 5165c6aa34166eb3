# Drives the virtio-mmio device in the first slot: sets it up, kicks its queue 0 and takes its interrupt. With `random` on
# the command line it runs a random program on the registers instead, and says what it read. The test that runs it
# generates the same program.

.include "payload.inc"
.include "interrupts.inc"
.include "random.inc"

.equ VIRTIO_VECTOR, 0x40
.equ PROGRAM_LENGTH, 20000

# read32 register: EAX.
.macro read32 register
    mov $VIRTIO + \register, %eax
    mov (%rax), %eax
.endm

.macro write_register value, register
    write32 $\value, VIRTIO + \register
.endm

begin
    on_option "random", random
    call interrupts_init
    mov $VIRTIO_VECTOR, %eax
    mov $on_virtio, %edi
    call set_handler
    call route_virtio

    read32 VIRTIO_MAGIC
    print_value "magic ", %rax
    read32 VIRTIO_VERSION
    print_value ", version ", %rax
    read32 VIRTIO_DEVICE_ID
    print_value ", device ", %rax
    print "\n"

    write_register 0, VIRTIO_STATUS
    write_register 1, VIRTIO_STATUS
    write_register 3, VIRTIO_STATUS
    read32 VIRTIO_DEVICE_FEATURES
    print_value "features ", %rax
    write_register 1, VIRTIO_DEVICE_FEATURES_SEL
    read32 VIRTIO_DEVICE_FEATURES
    print_value " ", %rax
    write_register 0, VIRTIO_DRIVER_FEATURES_SEL
    write_register 5, VIRTIO_DRIVER_FEATURES
    write_register 1, VIRTIO_DRIVER_FEATURES_SEL
    write_register 1, VIRTIO_DRIVER_FEATURES
    write_register 11, VIRTIO_STATUS
    read32 VIRTIO_STATUS
    print_value ", status ", %rax
    print "\n"

    write_register 0, VIRTIO_QUEUE_SEL
    read32 VIRTIO_QUEUE_NUM_MAX
    print_value "queue of ", %rax
    write_register 16, VIRTIO_QUEUE_NUM
    write_register descriptors, VIRTIO_QUEUE_DESC
    write_register available, VIRTIO_QUEUE_DRIVER
    write_register used, VIRTIO_QUEUE_DEVICE
    write_register 1, VIRTIO_QUEUE_READY
    write_register 15, VIRTIO_STATUS
    read32 VIRTIO_STATUS
    print_value ", status ", %rax
    print "\n"

    mov $3, %ecx
kick:
    movl $0, interrupts
    write_register 0, VIRTIO_QUEUE_NOTIFY
wait:
    cli
    cmpl $0, interrupts
    jne taken
    sti                             # takes effect after hlt has begun: no interrupt is lost between them
    hlt
    jmp wait
taken:
    read32 VIRTIO_INTERRUPT_STATUS
    print_value "interrupt ", %rax
    print "\n"
    write_register 1, VIRTIO_INTERRUPT_ACK
    loop kick

    mov $VIRTIO + VIRTIO_CONFIG, %eax
    mov (%rax), %rax
    print_value "configuration ", %rax
    print "\n"
    jmp power_off

on_virtio:
    incl interrupts
    end_of_interrupt

# Sends the first slot's interrupt to VIRTIO_VECTOR of this CPU: edge, active high.
route_virtio:
    write32 $(IO_APIC_REDIRECTION + 2 * VIRTIO_GSI + 1), IO_APIC_SELECT
    mov $APIC_ID, %ecx
    mov (%rcx), %ecx                # the id is in the same bits of both registers
    write32 %ecx, IO_APIC_WINDOW
    write32 $(IO_APIC_REDIRECTION + 2 * VIRTIO_GSI), IO_APIC_SELECT
    write32 $VIRTIO_VECTOR, IO_APIC_WINDOW
    ret

# R8: the random number, R9: steps to go, R10: what was read so far, R11: the registers.
random:
    mov $1, %r8d
    mov $PROGRAM_LENGTH, %r9d
    xor %r10d, %r10d
    mov $VIRTIO, %r11d
step:
    # A register of the list, or every 8th time any byte of the page's first 288, with 1, 2, 4 or 8 bytes.
    call next_random
    mov %rax, %rcx
    shr $3, %rcx
    test $7, %al
    jnz listed
    mov %rcx, %rax
    xor %edx, %edx
    mov $288, %ebx
    div %rbx
    mov %rdx, %rbx                  # the offset
    call next_random
    mov %rax, %rcx
    and $3, %ecx
    call next_random
    jmp write
listed:
    mov %rcx, %rax
    xor %edx, %edx
    mov $REGISTERS, %ebx
    div %rbx
    movzwl registers(, %rdx, 2), %ebx
    mov $2, %ecx
    call next_random
    test $1, %al
    jz small
    shr $1, %rax
    jmp write
small:
    shr $1, %rax
    and $15, %eax
write:
    cmp $1, %ecx
    jb 1f
    je 2f
    cmp $3, %ecx
    jb 4f
    mov %rax, (%r11, %rbx)
    jmp read
4:  mov %eax, (%r11, %rbx)
    jmp read
2:  mov %ax, (%r11, %rbx)
    jmp read
1:  mov %al, (%r11, %rbx)
read:
    call next_random
    xor %edx, %edx
    mov $288, %ebx
    div %rbx
    mov (%r11, %rdx), %rax
    xor %rax, %r10
    rol $7, %r10
    dec %r9
    jnz step
    print_value "read ", %r10
    read32 VIRTIO_STATUS
    print_value ", status ", %rax
    print "\n"
    jmp power_off

    .section .rodata
registers:
    .word VIRTIO_STATUS, VIRTIO_STATUS, VIRTIO_STATUS, VIRTIO_STATUS
    .word VIRTIO_DEVICE_FEATURES_SEL, VIRTIO_DRIVER_FEATURES_SEL, VIRTIO_DRIVER_FEATURES
    .word VIRTIO_QUEUE_SEL, VIRTIO_QUEUE_NUM, VIRTIO_QUEUE_READY, VIRTIO_QUEUE_NOTIFY, VIRTIO_INTERRUPT_ACK
    .word VIRTIO_QUEUE_DESC, VIRTIO_QUEUE_DESC + 4, VIRTIO_QUEUE_DRIVER, VIRTIO_QUEUE_DEVICE, VIRTIO_SHM_SEL, VIRTIO_QUEUE_RESET
.equ REGISTERS, (. - registers) / 2

    .bss
interrupts:
    .skip 4
    .balign 16
descriptors:
    .skip 16 * 16
available:
    .skip 6 + 2 * 16
    .balign 4
used:
    .skip 6 + 8 * 16
