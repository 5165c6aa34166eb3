# The PVH entry: 32-bit protected mode, EBX = hvm_start_info (Xen docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h).
# It stays in 32-bit mode without paging, so it has small printing routines of its own.

.include "machine.inc"

.equ XEN_ELFNOTE_PHYS32_ENTRY, 18

# struct hvm_start_info.
.equ SI_MAGIC, 0
.equ SI_VERSION, 4
.equ SI_FLAGS, 8
.equ SI_NR_MODULES, 12
.equ SI_MODLIST, 16
.equ SI_CMDLINE, 24
.equ SI_RSDP, 32
.equ SI_MEMMAP, 40
.equ SI_MEMMAP_ENTRIES, 48
.equ MODULE_SIZE, 32
.equ MEMMAP_ENTRY_SIZE, 24

.macro print text:vararg
    .pushsection .rodata
.Ltext\@:
    .asciz \text
    .popsection
    push %esi
    mov $.Ltext\@, %esi
    call print_string
    pop %esi
.endm

# print32 "text", source: the text, then 8 hexadecimal digits.
.macro print32 text, source
    print "\text"
    push %eax
    mov \source, %eax
    call print_eax
    pop %eax
.endm

# print64 "text", offset, register: the text, then the 16 hexadecimal digits of the 64 bits at offset(register).
.macro print64 text, offset, register
    print32 "\text", \offset + 4(\register)
    print32 "", \offset(\register)
.endm

    .section .note.Xen, "a", @note
    .balign 4
    .long 4                         # size of the name
    .long 4                         # size of the value
    .long XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

    .text
    .globl _start
    .code64
# e_entry: what a loader uses that does not know the note.
_start:
    mov $SERIAL_DATA, %edx
    mov $wrong_entry, %esi
    mov $wrong_entry_length, %ecx
    rep outsb
    mov $SLEEP_CONTROL, %edx
    mov $SLEEP_TO_S5, %al
    out %al, %dx
1:  hlt
    jmp 1b

    .code32
pvh_start:
    mov $stack_end, %esp
    mov %cr0, %ecx
    mov %cr4, %edx
    pushf
    pop %edi
    cld
    print32 "cr0 ", %ecx
    print32 " cr4 ", %edx
    print32 " eflags ", %edi
    print32 "\nstart info: ", %ebx
    print32 "\nmagic: ", SI_MAGIC(%ebx)
    print32 "\nversion: ", SI_VERSION(%ebx)
    print32 "\nflags: ", SI_FLAGS(%ebx)
    print "\ncommand line: "
    mov SI_CMDLINE(%ebx), %esi
    call print_string
    print64 "\nrsdp: ", SI_RSDP, %ebx
    print "\n"

    mov SI_MEMMAP(%ebx), %edi
    mov SI_MEMMAP_ENTRIES(%ebx), %ecx
1:  test %ecx, %ecx
    jz 2f
    print64 "memory: ", 0, %edi
    print64 " ", 8, %edi
    print32 " ", 16(%edi)
    print "\n"
    add $MEMMAP_ENTRY_SIZE, %edi
    dec %ecx
    jmp 1b

2:  mov SI_MODLIST(%ebx), %edi
    mov SI_NR_MODULES(%ebx), %ecx
3:  test %ecx, %ecx
    jz 4f
    print64 "module: ", 0, %edi
    print64 " ", 8, %edi
    mov (%edi), %esi
    mov 8(%edi), %edx
    call checksum
    print32 " ", %edx
    print "\n"
    add $MODULE_SIZE, %edi
    dec %ecx
    jmp 3b

4:  mov $SLEEP_CONTROL, %edx
    mov $SLEEP_TO_S5, %al
    out %al, %dx
5:  hlt
    jmp 5b

# Sets EDX to the checksum of the EDX bytes at ESI: sum = rotate left by 1 (sum) + byte, in 32 bits.
checksum:
    push %eax
    push %ecx
    mov %edx, %ecx
    xor %edx, %edx
    xor %eax, %eax
1:  jecxz 2f
    lodsb
    rol $1, %edx
    add %eax, %edx
    dec %ecx
    jmp 1b
2:  pop %ecx
    pop %eax
    ret

# Prints the character in AL.
print_char:
    push %edx
    push %eax
    mov $SERIAL_LSR, %edx
1:  in %dx, %al
    test $LSR_THR_EMPTY, %al
    jz 1b
    mov $SERIAL_DATA, %edx
    mov (%esp), %al
    out %al, %dx
    pop %eax
    pop %edx
    ret

# Prints the null-terminated string at ESI.
print_string:
    push %eax
    push %esi
1:  lodsb
    test %al, %al
    jz 2f
    call print_char
    jmp 1b
2:  pop %esi
    pop %eax
    ret

# Prints EAX as 8 hexadecimal digits.
print_eax:
    push %ecx
    push %edx
    mov %eax, %edx
    mov $8, %ecx
1:  rol $4, %edx
    mov %edx, %eax
    and $15, %eax
    mov hex_digits(%eax), %al
    call print_char
    loop 1b
    mov %edx, %eax
    pop %edx
    pop %ecx
    ret

    .section .rodata
hex_digits:
    .ascii "0123456789abcdef"
wrong_entry:
    .ascii "64-bit entry\n"
    .equ wrong_entry_length, . - wrong_entry

    .bss
    .balign 16
stack:
    .skip 4096
stack_end:
