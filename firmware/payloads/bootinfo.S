# What the 64-bit boot protocol gives a kernel (Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").

.include "payload.inc"

.equ RSDP_SIZE, 36
.equ RSDP_SIZE_OF_ACPI_1, 20

begin
    mov %cs, %eax
    print_value "cs ", %rax
    mov %ds, %eax
    print_value " ds ", %rax
    mov %es, %eax
    print_value " es ", %rax
    mov %ss, %eax
    print_value " ss ", %rax
    pushfq
    pop %rax
    and $0x200, %eax
    print_value " interrupts ", %rax

    mov boot_params, %rbx
    print_value "\nboot_params: ", %rbx
    movzwl BP_BOOT_FLAG(%rbx), %eax
    print_value "\nboot_flag: ", %rax
    print "\nheader: "
    lea BP_HEADER_MAGIC(%rbx), %rsi
    mov $4, %ecx
    call print_chars
    movzwl BP_VERSION(%rbx), %eax
    print_value "\nprotocol: ", %rax
    movzbl BP_TYPE_OF_LOADER(%rbx), %eax
    print_value "\nloader: ", %rax
    print "\ncommand line: "
    mov BP_CMD_LINE_PTR(%rbx), %esi
    call print_string
    print "\n"
    call print_e820
    call print_initramfs
    call print_rsdp
    jmp power_off

print_e820:
    movzbl BP_E820_ENTRIES(%rbx), %ecx
    lea BP_E820_TABLE(%rbx), %rsi
1:  jrcxz 2f
    print_value "e820: ", (%rsi)
    print_value " ", 8(%rsi)
    mov 16(%rsi), %eax
    print_value " ", %rax
    print "\n"
    add $E820_ENTRY_SIZE, %rsi
    dec %rcx
    jmp 1b
2:  ret

# Its address, its size, and a checksum that knows the order of the bytes: sum = rotate left by 1 (sum) + byte, in 64 bits.
print_initramfs:
    mov BP_EXT_RAMDISK_IMAGE(%rbx), %esi
    shl $32, %rsi
    mov BP_RAMDISK_IMAGE(%rbx), %eax
    or %rax, %rsi
    mov BP_EXT_RAMDISK_SIZE(%rbx), %ecx
    shl $32, %rcx
    mov BP_RAMDISK_SIZE(%rbx), %eax
    or %rax, %rcx
    print_value "initramfs: ", %rsi
    print_value " ", %rcx
    xor %edx, %edx
    xor %eax, %eax
1:  jrcxz 2f
    lodsb
    rol $1, %rdx
    add %rax, %rdx
    dec %rcx
    jmp 1b
2:  print_value " ", %rdx
    print "\n"
    ret

# Its address, its signature, and the sums over its two lengths modulo 256, which are 0 when it is right.
print_rsdp:
    mov BP_ACPI_RSDP_ADDR(%rbx), %rsi
    print_value "rsdp: ", %rsi
    print " "
    mov $8, %ecx
    call print_chars
    mov $RSDP_SIZE_OF_ACPI_1, %ecx
    call sum
    print_value " ", %rax
    mov $RSDP_SIZE, %ecx
    call sum
    print_value " ", %rax
    print "\n"
    ret

# Prints ECX characters at RSI.
print_chars:
    push %rsi
1:  lodsb
    call print_char
    loop 1b
    pop %rsi
    ret

# Sets RAX to the sum of the ECX bytes at RSI modulo 256.
sum:
    push %rsi
    xor %edx, %edx
1:  lodsb
    add %al, %dl
    loop 1b
    movzbl %dl, %eax
    pop %rsi
    ret
