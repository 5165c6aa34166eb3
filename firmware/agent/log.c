#include "agent.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#define SHOWN 20
#define MAX_LINE 256
#define MAX_COMPLAINTS 8
#define MAX_COMPLAINT 400 /* bytes: a terminal that nobody reads yet takes all of them together */

static char complaints[MAX_COMPLAINTS][MAX_COMPLAINT];
static size_t complaint_count;

/* Consoles show a line without an end only once the next one follows (Linux kernel/printk/printk.c, vprintk_store): of a guest that is switched off, never. */
static void write_record(const char *format, va_list arguments)
{
    char line[512];
    int length = snprintf(line, sizeof line, "<3>vmm-agent: ");
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    strcat(line, "\n");
    int fd = open("/dev/kmsg", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC); /* a FIFO that a program has put there would wait for a reader */
    if (fd < 0)
        return;
    (void)!write(fd, line, strlen(line));
    close(fd);
}

void log_line(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_record(format, arguments);
    va_end(arguments);
}

void complain(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_record(format, arguments);
    va_end(arguments);
    if (complaint_count == MAX_COMPLAINTS)
        return;
    char *text = complaints[complaint_count++];
    va_start(arguments, format);
    vsnprintf(text, MAX_COMPLAINT, format, arguments);
    va_end(arguments);
    for (; *text; text++)
        if (iscntrl((unsigned char)*text))
            *text = '?'; /* a name in the root can have anything in it */
}

void tell_complaints(int fd)
{
    for (size_t i = 0; i < complaint_count; i++)
        dprintf(fd, "vmm: the guest %s\n", complaints[i]);
}

void forget_complaints(void)
{
    complaint_count = 0;
}

/* The next record of the kernel's log, as text. Returns false if there is none. */
bool read_record(int log, char *record, size_t size)
{
    ssize_t length;
    do
        length = read(log, record, size - 1);
    while (length < 0 && (errno == EINTR || errno == EPIPE)); /* EPIPE: the oldest were overwritten meanwhile */
    record[length > 0 ? length : 0] = 0;
    return length > 0;
}

/* Of a record such as "6,339,5140900,-;text" the line that a console would have. Returns its length. */
static int console_line(char *record, char *line, size_t size)
{
    unsigned long long time = 0;
    char *text = strchr(record, ';');
    if (!text || sscanf(record, "%*u,%*u,%llu", &time) != 1)
        return 0;
    text[1 + strcspn(text + 1, "\n")] = 0;
    int length = snprintf(line, size, "[%5llu.%06llu] %s\n", time / 1000000, time % 1000000, text + 1);
    if (length < (int)size)
        return length;
    line[size - 2] = '\n'; /* of a line that is too long */
    return (int)size - 1;
}

/* What the kernel has said last goes to the serial port, whose other end is vmm's log: booted with "quiet" it keeps most to itself. */
void show_kernel_log(void)
{
    static struct {
        int length;
        char text[MAX_LINE];
    } last[SHOWN];
    char record[MAX_RECORD];
    size_t count = 0;
    if (!is_guest)
        return;
    int from = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC), to = open("/dev/ttyS0", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (to >= 0 && isatty(to))
        fcntl(to, F_SETFL, O_WRONLY);
    while (from >= 0 && to >= 0 && count < MAX_RECORDS && read_record(from, record, sizeof record)) {
        last[count % SHOWN].length = console_line(record, last[count % SHOWN].text, MAX_LINE);
        count++;
    }
    for (size_t i = count > SHOWN ? count - SHOWN : 0; i < count; i++)
        (void)!write(to, last[i % SHOWN].text, last[i % SHOWN].length);
    if (to >= 0) {
        tcdrain(to);
        close(to);
    }
    if (from >= 0)
        close(from);
}
