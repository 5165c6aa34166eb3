# Where a payload in C begins. Calls main(boot_params) in user mode, because a KVM that interprets kernel mode runs user mode at full
# speed. The page tables give user mode all of the first 8 GiB, and a task state segment the I/O ports. Interrupts are off there; HLT, which
# user mode may not do, waits for one: of the serial port's input or of the first virtio device. Any other exception resets the machine: it has no handler.

.include "machine.inc"
.include "interrupts.inc"

.equ USER_TABLE, 1 << 0 | 1 << 1 | 1 << 2           # present, writable, for user mode
.equ USER_LARGE_PAGE, USER_TABLE | 1 << 7
.equ LARGE_PAGE_SIZE, 2 << 20
.equ DIRECTORIES, 8                                 # 1 GiB each
.equ LARGE_PAGES, DIRECTORIES * 512
.equ USER_CODE, 0x20 | 3
.equ USER_DATA, 0x28 | 3
.equ TASK, 0x30
.equ TASK_SIZE, 104                                 # without the map of ports
.equ PORTS, 0x800                                   # those of the machine are all below
.equ TASK_STACK, 4                                  # of kernel mode
.equ DEVICE_VECTOR, 0x40
.equ GENERAL_PROTECTION, 13
.equ HLT_SIZE, 1
.equ FLAGS, 1 << 1                                  # always set

    .text
    .globl _start
_start:
    cld
    mov $kernel_stack_end, %esp
    mov %rsi, %rbp
    mov $0xff, %al
    out %al, $PIC1_MASK
    out %al, $PIC2_MASK

    movq $pointers + USER_TABLE, top
    mov $directories + USER_TABLE, %eax
    xor %ecx, %ecx
1:  mov %rax, pointers(, %rcx, 8)
    add $4096, %eax
    inc %ecx
    cmp $DIRECTORIES, %ecx
    jne 1b
    mov $USER_LARGE_PAGE, %eax
    xor %ecx, %ecx
2:  mov %rax, directories(, %rcx, 8)
    add $LARGE_PAGE_SIZE, %rax
    inc %ecx
    cmp $LARGE_PAGES, %ecx
    jne 2b
    mov $top, %eax
    mov %rax, %cr3

    mov $task, %eax
    mov %ax, segments + TASK + 2
    shr $16, %eax
    mov %al, segments + TASK + 4
    lgdt table_pointer
    mov $TASK, %eax
    ltr %ax
    mov $USER_DATA, %eax
    mov %eax, %ds
    mov %eax, %es

    call interrupts_init
    mov $DEVICE_VECTOR, %eax
    mov $on_device, %edi
    call set_handler
    mov $DEVICE_VECTOR, %eax
    route SERIAL_GSI
    mov $DEVICE_VECTOR, %eax
    route VIRTIO_GSI
    mov $GENERAL_PROTECTION, %eax
    mov $idle, %edi
    call set_handler
    mov $SERIAL_MCR, %edx
    mov $MCR_RTS | MCR_OUT2, %al
    out %al, %dx
    mov $SERIAL_IER, %edx
    mov $IER_RECEIVED, %al
    out %al, %dx

    pushq $USER_DATA
    pushq $stack_end
    pushq $FLAGS
    pushq $USER_CODE
    pushq $user
    iretq
user:
    mov %rbp, %rdi
    call main
    jmp .

on_device:
    end_of_interrupt

# Of HLT in user mode, after which it goes on.
idle:
    add $8, %rsp                                    # the error code
    addq $HLT_SIZE, (%rsp)
    sti                                             # takes effect after hlt has begun: no interrupt is lost between them
    hlt
    iretq                                           # interrupts are off again

    .section .rodata
    .balign 8
segments:
    .quad 0, 0
    .quad 0x00af9b000000ffff                        # 64-bit code and data, where the boot protocol has them
    .quad 0x00cf93000000ffff
    .quad 0x00affb000000ffff                        # USER_CODE and USER_DATA
    .quad 0x00cff3000000ffff
    .quad 0x0000890000000000 + TASK_LIMIT           # the task state segment
    .quad 0
table_pointer:
    .word . - segments - 1
    .quad segments

# A task state segment whose map lets user mode use every port of the machine.
    .balign 8
task:
    .skip TASK_STACK
    .quad kernel_stack_end
    .skip TASK_SIZE - TASK_STACK - 8 - 2
    .word TASK_SIZE
    .skip PORTS / 8
    .byte 0xff
.equ TASK_LIMIT, . - task - 1

    .bss
    .balign 4096
top:
    .skip 4096
pointers:
    .skip 4096
directories:
    .skip DIRECTORIES * 4096
    .skip 4096
kernel_stack_end:
    .skip 16384
stack_end:
