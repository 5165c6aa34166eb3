// Makes a thread of another process do system calls, as a break-in would, by ptrace(2); for the tests of what confines processes.
//   inject THREAD                 on standard input lines of CALL ARGUMENT..., apart by tabs; what each gives on standard output
//   inject start COMMAND...       starts a program whose seccomp(2) does nothing, and says its process id
// Arguments are numbers, @TEXT for the address of a text, %HEX for the address of bytes, and =N for the result of the Nth call before, from 0.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CALLS 1024

// All that the kernel's headers know: build makes the list.
static const struct {
    const char *name;
    long number;
} calls[] = {
#include "calls.h"
};
static long results[MAX_CALLS];

static long number_of(const char *name)
{
    for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (!strcmp(calls[i].name, name))
            return calls[i].number;
    return -1;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

// Makes COMMAND the tracee and has its seccomp(2) do nothing, so that what else confines it can be seen; then lets it run.
static int start(char **command)
{
    int status, child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execv(command[0], command);
        fail(command[0]);
    }
    if (waitpid(child, &status, 0) < 0 || ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL))
        fail("start");
    for (;;) {
        struct user_regs_struct now;
        if (ptrace(PTRACE_SYSCALL, child, 0, 0) || waitpid(child, &status, __WALL) < 0 || !WIFSTOPPED(status))
            fail("it ended");
        if (WSTOPSIG(status) != (SIGTRAP | 0x80))
            continue;
        if (ptrace(PTRACE_GETREGS, child, 0, &now))
            fail("registers");
        if (now.orig_rax != SYS_seccomp || now.rdi != 1)
            continue;
        now.orig_rax = -1;
        if (ptrace(PTRACE_SETREGS, child, 0, &now) || ptrace(PTRACE_SYSCALL, child, 0, 0) || waitpid(child, &status, __WALL) < 0)
            fail("skip");
        now.rax = 0;
        if (ptrace(PTRACE_SETREGS, child, 0, &now) || ptrace(PTRACE_DETACH, child, 0, 0))
            fail("detach");
        printf("%d\n", child);
        fflush(stdout);
        waitpid(child, &status, 0);
        return 0;
    }
}

// Stops a thread that waits in a system call, or is about to: it may have been let go a moment ago. Where its instruction is.
static unsigned long long hold(int thread, struct user_regs_struct *old)
{
    int status;
    for (int i = 0; i < 1000; i++) {
        if (ptrace(PTRACE_ATTACH, thread, 0, 0) || waitpid(thread, &status, __WALL) < 0 || ptrace(PTRACE_GETREGS, thread, 0, old))
            fail("attach");
        if ((long long)old->orig_rax >= 0)
            return old->rip - 2;
        if ((ptrace(PTRACE_PEEKTEXT, thread, old->rip, 0) & 0xffff) == 0x050f)
            return old->rip;
        if (ptrace(PTRACE_DETACH, thread, 0, 0))
            fail("detach");
        usleep(1000);
    }
    fputs("it does not wait in a system call\n", stderr);
    exit(1);
}

int main(int argc, char **argv)
{
    char line[4096];
    struct user_regs_struct old;
    if (argc < 2 || (!strcmp(argv[1], "start") && argc < 3)) {
        fputs("usage: inject THREAD | inject start COMMAND [ARGUMENT...]\n", stderr);
        return 2;
    }
    if (!strcmp(argv[1], "start"))
        return start(argv + 2);
    int thread = atoi(argv[1]), count = 0;
    unsigned long long instruction = hold(thread, &old);
    while (fgets(line, sizeof(line), stdin) && count < MAX_CALLS) {
        struct user_regs_struct now = old;
        unsigned long long arguments[6] = {0}, room = (old.rsp - 4096) & ~15ull;
        char *word = strtok(line, "\t\n");
        long number = number_of(word);
        if (number < 0) {
            printf("unknown\n");
            results[count++] = -1;
            continue;
        }
        for (int i = 0; i < 6 && (word = strtok(0, "\t\n")); i++, room -= 256) {
            char bytes[256] = {0};
            if (word[0] == '@')
                strncpy(bytes, word + 1, sizeof(bytes) - 1);
            else if (word[0] == '%')
                for (int j = 0; j < 255 && word[1 + 2 * j]; j++)
                    sscanf(word + 1 + 2 * j, "%2hhx", (unsigned char *)bytes + j);
            if (word[0] == '=') {
                arguments[i] = results[atoi(word + 1)];
                continue;
            }
            if (word[0] != '@' && word[0] != '%') {
                arguments[i] = strtoull(word, 0, 0);
                continue;
            }
            for (int j = 0; j < 256; j += 8)
                if (ptrace(PTRACE_POKEDATA, thread, room + j, *(long *)(bytes + j)))
                    fail("poke");
            arguments[i] = room;
        }
        int status;
        now.orig_rax = -1;
        now.rip = instruction;
        now.rax = number;
        now.rdi = arguments[0], now.rsi = arguments[1], now.rdx = arguments[2];
        now.r10 = arguments[3], now.r8 = arguments[4], now.r9 = arguments[5];
        if (ptrace(PTRACE_SETREGS, thread, 0, &now) || ptrace(PTRACE_SINGLESTEP, thread, 0, 0) || waitpid(thread, &status, __WALL) < 0)
            fail("step");
        if (!WIFSTOPPED(status)) {
            printf("killed\n");
            return 0;
        }
        if (ptrace(PTRACE_GETREGS, thread, 0, &now))
            fail("result");
        printf("%ld\n", results[count++] = (long)now.rax);
    }
    // Back into the system call that it waited in, or was about to begin.
    if (instruction != old.rip)
        old.rax = old.orig_rax;
    old.orig_rax = -1;
    old.rip = instruction;
    if (ptrace(PTRACE_SETREGS, thread, 0, &old) || ptrace(PTRACE_DETACH, thread, 0, 0))
        fail("detach");
    return 0;
}
