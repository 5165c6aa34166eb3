// What payloads in C share: the I/O ports, the serial port, the command line and the end. machine.h is made of machine.inc.
#pragma once
#include <stdint.h>
#include "machine.h"

static inline void write_port(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint8_t read_port(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void print(const char *text)
{
    for (; *text; text++) {
        while (!(read_port(SERIAL_LSR) & LSR_THR_EMPTY))
            ;
        write_port(SERIAL_DATA, *text);
    }
}

// The text, then the number as 0x and hexadecimal digits without leading zeros.
static inline void print_number(const char *text, uint64_t number)
{
    char digits[19], *first = digits + sizeof digits - 1;
    *first = 0;
    do
        *--first = "0123456789abcdef"[number & 15];
    while ((number >>= 4) != 0);
    *--first = 'x';
    *--first = '0';
    print(text);
    print(first);
}

static inline int has_input(void) { return read_port(SERIAL_LSR) & LSR_DATA_READY; }

// Returns when an interrupt has come since the last return.
static inline void wait_for_interrupt(void) { __asm__ volatile("hlt" : : : "memory"); } // see start.S

static inline char read_input(void)
{
    while (!has_input())
        wait_for_interrupt();
    return read_port(SERIAL_DATA);
}

static inline __attribute__((noreturn)) void wait_for_the_end(void)
{
    for (;;)
        ;
}

static inline __attribute__((noreturn)) void power_off(void)
{
    write_port(SLEEP_CONTROL, SLEEP_TO_S5);
    wait_for_the_end();
}

static inline __attribute__((noreturn)) void reset(void)
{
    write_port(RESET_REGISTER, RESET_VALUE);
    wait_for_the_end();
}

// The decimal number after NAME= on the command line, 0 without one.
static inline uint64_t number_option(const uint8_t *boot_params, const char *name)
{
    const char *line = (const char *)(uintptr_t)*(const uint32_t *)(boot_params + BP_CMD_LINE_PTR);
    for (; *line; line++) {
        const char *at = line, *expected = name;
        while (*expected && *at == *expected)
            at++, expected++;
        if (*expected || *at != '=')
            continue;
        uint64_t number = 0;
        while (*++at >= '0' && *at <= '9')
            number = 10 * number + (*at - '0');
        return number;
    }
    return 0;
}
