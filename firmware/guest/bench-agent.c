/* The host's side of the agent of `vmm exec`, for QEMU, which has none: listens on vsock port 1024, has one guest run one command, and ends with
 * its status. What the command writes is read and dropped.
 *   bench-agent PROGRAM */
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../agent/protocol.h"

#define AGENT_PORT 1024

static void fail(const char *what)
{
    perror(what);
    exit(125);
}

static void read_all(int fd, void *buffer, size_t length)
{
    for (size_t done = 0; done < length;) {
        ssize_t count = read(fd, (char *)buffer + done, length - done);
        if (count <= 0)
            fail("the guest is gone");
        done += count;
    }
}

/* The command without environment, user and working directory, then the end of its input. */
static void start(int fd, const char *program)
{
    struct {
        struct frame frame;
        struct start start;
        char text[256];
    } message = { .frame = { .type = FRAME_START }, .start = { .arguments = 1, .umask = 022 } };
    size_t length = strlen(program) + 1;
    if (length > sizeof message.text - 3)
        exit(2);
    message.text[0] = '/'; /* working directory, then an empty user */
    memcpy(message.text + 3, program, length);
    message.frame.length = sizeof message.start + 3 + length;
    struct frame end = { .type = FRAME_END, .stream = STREAM_INPUT };
    if (write(fd, &message, sizeof message.frame + message.frame.length) < 0 || write(fd, &end, sizeof end) < 0)
        fail("write");
}

int main(int argc, char **argv)
{
    static char buffer[MAX_START];
    struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT };
    int listener = socket(AF_VSOCK, SOCK_STREAM, 0), fd;
    if (argc != 2 || listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 1) < 0)
        fail("bench-agent PROGRAM");
    if ((fd = accept(listener, NULL, NULL)) < 0)
        fail("accept");
    for (;;) {
        struct frame frame;
        uint32_t end[2];
        read_all(fd, &frame, sizeof frame);
        if (frame.length > sizeof buffer)
            fail("a frame");
        read_all(fd, buffer, frame.length);
        if (frame.type == FRAME_HELLO)
            start(fd, argv[1]);
        if (frame.type != FRAME_EXIT)
            continue;
        memcpy(end, buffer, sizeof end);
        return end[0] == EXIT_STATUS ? (int)end[1] : 125;
    }
}
