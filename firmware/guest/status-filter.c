/*
 * Copies a guest's console from stdin to stdout, up to the line that its init ends with (RS MARKER ':' STATUS), and
 * exits with that status; 125 when the line never came.
 */
#include <stdio.h>
#include <unistd.h>

enum { NO_STATUS = 125 };

static void write_all(const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(STDOUT_FILENO, data, size);
        if (written <= 0)
            _exit(141); /* nobody reads any more, as SIGPIPE would say */
        data += written;
        size -= written;
    }
}

int main(int argc, char **argv)
{
    char marker[80], in[4096], out[sizeof in + sizeof marker];
    int length, matched = 0, status = -1, ended = 0;
    ssize_t size;

    if (argc != 2)
        return 2;
    /* RS stands only at its start, so a failed match can begin anew only with the byte that failed it. */
    length = snprintf(marker, sizeof marker, "\036%s:", argv[1]);
    if (length >= (int)sizeof marker)
        return 2;

    while ((size = read(STDIN_FILENO, in, sizeof in)) > 0) {
        size_t used = 0;
        for (ssize_t i = 0; i < size && !ended; i++) {
            if (matched == length) {
                if (in[i] >= '0' && in[i] <= '9')
                    status = (status < 0 ? 0 : status % 1000 * 10) + in[i] - '0';
                else
                    ended = 1;
                continue;
            }
            if (in[i] == marker[matched]) {
                matched++;
                continue;
            }
            for (int j = 0; j < matched; j++)
                out[used++] = marker[j];
            matched = in[i] == marker[0];
            if (!matched)
                out[used++] = in[i];
        }
        write_all(out, used);
    }
    if (matched < length)
        write_all(marker, matched);
    return status < 0 ? NO_STATUS : status & 0xff;
}
