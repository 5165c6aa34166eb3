// vsock: moves bytes over AF_VSOCK, on either side.
//   vsock receive PORT            takes one connection and copies it to standard output
//   vsock send CID PORT           copies standard input to the peer, and waits until it has taken all
//   vsock echo PORT               answers every connection with what it gets, for ever
//   vsock connect CID PORT COUNT  makes COUNT connections to an echo, one after another, a line over each
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int socket_for(unsigned cid, unsigned port, struct sockaddr_vm *address)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

    if (fd < 0)
        fail("socket(AF_VSOCK)");
    *address = (struct sockaddr_vm){.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
    return fd;
}

static int listen_on(unsigned port)
{
    struct sockaddr_vm address;
    int fd = socket_for(VMADDR_CID_ANY, port, &address);

    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) || listen(fd, 16))
        fail("listen");
    return fd;
}

static int connect_to(unsigned cid, unsigned port)
{
    struct sockaddr_vm address;

    for (int attempt = 0;; attempt++) {
        int fd = socket_for(cid, port, &address);

        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        if (attempt == 100) // the other side may not listen yet
            fail("connect");
        close(fd);
        usleep(100000);
    }
}

static void copy(int from, int to)
{
    static char buffer[1 << 16];
    ssize_t count;

    while ((count = read(from, buffer, sizeof(buffer))) > 0)
        for (ssize_t done = 0, part; done < count; done += part)
            if ((part = write(to, buffer + done, count - done)) < 0)
                fail("write");
    if (count < 0)
        fail("read");
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "receive")) {
        int fd = accept(listen_on(atoi(argv[2])), NULL, NULL);

        if (fd < 0)
            fail("accept");
        copy(fd, STDOUT_FILENO);
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "send")) {
        int fd = connect_to(atoi(argv[2]), atoi(argv[3]));
        char end;

        copy(STDIN_FILENO, fd);
        if (shutdown(fd, SHUT_WR))
            fail("shutdown");
        return read(fd, &end, 1) == 0 ? 0 : 1;
    }
    if (argc == 3 && !strcmp(argv[1], "echo")) {
        int listener = listen_on(atoi(argv[2]));

        for (;;) {
            int fd = accept(listener, NULL, NULL);

            if (fd < 0)
                fail("accept");
            copy(fd, fd);
            close(fd);
        }
    }
    if (argc == 5 && !strcmp(argv[1], "connect")) {
        int count = atoi(argv[4]);

        for (int i = 0; i < count; i++) {
            int fd = connect_to(atoi(argv[2]), atoi(argv[3]));
            char sent[16], received[16];
            int length = snprintf(sent, sizeof(sent), "%d\n", i);

            if (write(fd, sent, length) != length || shutdown(fd, SHUT_WR))
                fail("write");
            for (int got = 0; got < length;) {
                ssize_t part = read(fd, received + got, length - got);

                if (part <= 0)
                    fail("read");
                got += part;
            }
            if (memcmp(sent, received, length)) {
                fprintf(stderr, "connection %d: another answer\n", i);
                return 1;
            }
            close(fd);
        }
        printf("%d connections\n", count);
        return 0;
    }
    fprintf(stderr, "usage: vsock receive PORT | send CID PORT | echo PORT | connect CID PORT COUNT\n");
    return 2;
}
