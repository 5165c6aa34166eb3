# Resets the machine as Linux does for a panic: with the flag for a warm start in the BIOS data area (native_machine_emergency_restart of
# Linux arch/x86/kernel/reboot.c, with reboot=panic_warm). With `cold` on the command line the flag is that of a reboot.
# With `kdump` it first says to the pvpanic device that a crash kernel takes over, whose reset is an ordinary one.
# The command line says how: acpi, i8042 or triple. A note makes it Linux, for which vmm adds words to the command line: it prints them.

.include "payload.inc"

.equ RESET_FLAG, 0x472
.equ WARM_START, 0x1234
.equ BUILD_SALT, 0x100              # LINUX_ELFNOTE_BUILD_SALT

    .section .note.Linux, "a", @note
    .balign 4
    .long 6                         # size of the name
    .long 4                         # size of the value
    .long BUILD_SALT
    .asciz "Linux"
    .balign 4
    .long 0

begin
    print "command line: "
    mov boot_params, %rdi
    mov BP_CMD_LINE_PTR(%rdi), %esi
    call print_string
    print "\n"
    on_option "kdump", 2f
    jmp 3f
2:  out_byte PVPANIC_CRASH_LOADED, PVPANIC
3:  mov $RESET_FLAG, %ebx
    movw $0, (%rbx)
    on_option "cold", 1f
    movw $WARM_START, (%rbx)
1:
.include "resets.inc"
