# Memory accesses where no device is: each width, across a page and across the end of RAM.

.include "payload.inc"

begin
    mov $UNCLAIMED_MMIO, %ebx
    xor %eax, %eax
    mov (%rbx), %al
    print_value "read 8: ", %rax
    xor %eax, %eax
    mov (%rbx), %ax
    print_value "\nread 16: ", %rax
    mov (%rbx), %eax
    print_value "\nread 32: ", %rax
    mov (%rbx), %rax
    print_value "\nread 64: ", %rax
    mov 0xffd(%rbx), %rax
    print_value "\nread 64 across a page: ", %rax

    mov %rbx, %rsi
    mov $copy, %edi
    mov $16, %ecx
    rep movsb
    print_value "\ncopied: ", copy
    print_value " ", copy + 8

    xor %eax, %eax
    mov %al, (%rbx)
    mov %ax, (%rbx)
    mov %eax, (%rbx)
    mov %rax, (%rbx)
    mov %rax, 0xffd(%rbx)
    mov (%rbx), %rax
    print_value "\nread 64 after writes: ", %rax

    # The low half is RAM and what was written, the high half is not there.
    call find_ram_end
    mov $0x12345678, %eax
    mov %rax, -4(%rbx)
    mov -4(%rbx), %rax
    print_value "\nread 64 across the end of RAM: ", %rax
    print "\n"
    jmp power_off

# Sets RBX to the end of the RAM that begins at 1 MiB.
find_ram_end:
    mov boot_params, %rsi
    movzbl BP_E820_ENTRIES(%rsi), %ecx
    add $BP_E820_TABLE, %rsi
1:  cmpq $0x100000, (%rsi)
    je 2f
    add $E820_ENTRY_SIZE, %rsi
    loop 1b
    print "no RAM at 1 MiB\n"
    jmp power_off
2:  mov (%rsi), %rbx
    add 8(%rsi), %rbx
    ret

    .bss
copy:
    .skip 16
