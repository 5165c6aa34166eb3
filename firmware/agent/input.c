/* The command's standard input: what came from the host is kept in a ring until the command takes it. */
#include "agent.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define END_OF_TRANSMISSION 4 /* Ctrl-D, which ends the input of a terminal */
#define GIVE_BACK (WINDOW / 4)

void open_input(struct input *input, int fd, bool is_terminal)
{
    *input = (struct input){ .fd = fd, .is_terminal = is_terminal };
}

void close_input(struct input *input)
{
    if (input->fd < 0)
        return;
    close(input->fd);
    input->fd = -1;
    input->count = 0;
}

/* Returns false if that is more than the host may send. */
bool add_input(struct input *input, const unsigned char *data, size_t length)
{
    if (length > 0)
        input->is_line_unfinished = data[length - 1] != '\n' && data[length - 1] != '\r';
    if (input->fd < 0)
        return true; /* the host was told, or will be */
    if (length > WINDOW - input->count)
        return false;
    size_t end = (input->start + input->count) % WINDOW;
    size_t part = length < WINDOW - end ? length : WINDOW - end;
    memcpy(input->bytes + end, data, part);
    memcpy(input->bytes, data + part, length - part);
    input->count += length;
    return true;
}

/* All that came was written. A terminal is not closed: who reads from it is told. */
static void finish(struct input *input)
{
    static const char end = END_OF_TRANSMISSION;
    if (!input->is_terminal)
        close_input(input);
    else
        while (input->ends_to_type > 0 && write(input->fd, &end, sizeof end) == sizeof end)
            input->ends_to_type--;
}

void end_input(struct input *input)
{
    if (input->is_over)
        return;
    input->is_over = true;
    /* The first Ctrl-D behind an unfinished line only hands that over. */
    input->ends_to_type = input->is_terminal ? 1 + input->is_line_unfinished : 0;
    if (input->count == 0)
        finish(input);
}

bool has_input_to_write(const struct input *input)
{
    return input->count > 0 || input->ends_to_type > 0;
}

/* Writes what the command takes. Returns false if nobody has the other end any more; then the input is closed. */
bool write_input(struct input *input)
{
    while (input->count > 0) {
        size_t part = input->count < WINDOW - input->start ? input->count : WINDOW - input->start;
        ssize_t count = write(input->fd, input->bytes + input->start, part);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0 && errno == EAGAIN)
            break;
        if (count < 0) {
            close_input(input);
            return false;
        }
        input->start = (input->start + count) % WINDOW;
        input->count -= count;
        input->taken += count;
    }
    if (input->count == 0 && input->is_over)
        finish(input);
    return true;
}

/* So many bytes more may the host send. Small numbers wait until there is nothing left to write. */
uint32_t input_to_give_back(struct input *input)
{
    uint32_t taken = input->taken;
    if (taken < GIVE_BACK && input->count > 0)
        return 0;
    input->taken = 0;
    return taken;
}
