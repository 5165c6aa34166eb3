# Interrupts that wake a halted CPU: the serial port's through the I/O APIC, and the local APIC's timer.

.include "payload.inc"
.include "interrupts.inc"

.equ SERIAL_VECTOR, 0x40
.equ TIMER_VECTOR, 0x41
.equ TIMER_COUNT, 20000000          # 20 ms at the 1 GHz of KVM's APIC timer

# wait_for counter: halts until the counter is not zero.
.macro wait_for counter
1:  cli
    cmpl $0, \counter
    jne 2f
    sti                             # takes effect after hlt has begun: no interrupt is lost between them
    hlt
    jmp 1b
2:
.endm

begin
    call interrupts_init
    mov $SERIAL_VECTOR, %eax
    mov $on_serial, %edi
    call set_handler
    mov $TIMER_VECTOR, %eax
    mov $on_timer, %edi
    call set_handler
    mov $SERIAL_VECTOR, %eax
    call route_serial

    # The transmitter is empty, so enabling its interrupt raises it.
    out_byte MCR_OUT2, SERIAL_MCR
    out_byte IER_TRANSMITTED, SERIAL_IER
    wait_for serial_count
    out_byte 0, SERIAL_IER
    movzbl serial_cause, %eax
    print_value "serial interrupt, cause ", %rax
    print "\n"

    # And once more from a halt that has begun: a byte is sent, the interrupt says that it is gone.
    movl $0, serial_count
    out_byte IER_TRANSMITTED, SERIAL_IER
    wait_for serial_count
    movl $0, serial_count
    out_byte '*', SERIAL_DATA
    wait_for serial_count
    out_byte 0, SERIAL_IER
    movzbl serial_cause, %eax
    print_value "\nserial interrupt after a byte, cause ", %rax
    print "\n"

    call wait_for_timer
    print "timer interrupt\n"

    # An interrupt of a masked input is lost, for longer than it could be on its way.
    mov $(IO_APIC_MASKED | SERIAL_VECTOR), %eax
    call route_serial
    movl $0, serial_count
    out_byte IER_TRANSMITTED, SERIAL_IER
    call wait_for_timer
    out_byte 0, SERIAL_IER
    mov $SERIAL_VECTOR, %eax
    call route_serial
    call wait_for_timer
    mov serial_count, %eax
    print_value "serial interrupts while masked: ", %rax
    print "\n"

    # A line that pulses interrupts a guest that takes it for a level too, again and again.
    mov $(IO_APIC_LEVEL | SERIAL_VECTOR), %eax
    call route_serial
    mov $2, %ebx
1:  movl $0, serial_count
    out_byte IER_TRANSMITTED, SERIAL_IER
    wait_for serial_count
    out_byte 0, SERIAL_IER
    dec %ebx
    jnz 1b
    print "level-triggered interrupts\n"
    jmp power_off

# Waits 20 ms by the APIC timer, with interrupts on.
wait_for_timer:
    movl $0, timer_count
    write32 $APIC_DIVIDE_BY_1, APIC_TIMER_DIVIDE
    write32 $TIMER_VECTOR, APIC_LVT_TIMER
    write32 $TIMER_COUNT, APIC_TIMER_INITIAL
    wait_for timer_count
    ret

on_serial:
    push %rax
    push %rdx
    mov $SERIAL_IIR, %edx
    in %dx, %al
    mov %al, serial_cause
    incl serial_count
    pop %rdx
    pop %rax
    end_of_interrupt

on_timer:
    incl timer_count
    end_of_interrupt

    .bss
serial_count:
    .skip 4
timer_count:
    .skip 4
serial_cause:
    .skip 1
