# The date and time of the CMOS clock, as year-month-day hours:minutes:seconds.

.include "payload.inc"

.equ STATUS_A, 0x0a
.equ UPDATE_IN_PROGRESS, 1 << 7
.equ REGISTERS, 7

begin
    call read_clock                 # until two readings agree, so that no carry is between the fields
1:  mov clock, %rbx
    call read_clock
    cmp %rbx, clock
    jne 1b

    mov $clock, %esi
    mov $separators, %edi
    mov $REGISTERS, %ebx
2:  xor %eax, %eax
    lodsb
    mov $4, %cl
    call print_digit
    mov $0, %cl
    call print_digit
    mov (%rdi), %al
    inc %rdi
    test %al, %al
    jz 3f
    call print_char
3:  dec %ebx
    jnz 2b
    jmp power_off

# Reads the registers (BCD, 24 hours: how the clock powers on) to `clock`.
read_clock:
    mov $STATUS_A, %al
    call read_register
    test $UPDATE_IN_PROGRESS, %al
    jnz read_clock
    mov $registers, %esi
    mov $clock, %edi
    mov $REGISTERS, %ecx
1:  lodsb
    call read_register
    stosb
    loop 1b
    ret

# Reads CMOS register AL to AL.
read_register:
    out %al, $RTC_INDEX
    in $RTC_DATA, %al
    ret

    .section .rodata
registers:
    .byte 0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00
separators:
    .ascii "\0-- ::\n"

    .bss
    .balign 8
clock:
    .skip 8
