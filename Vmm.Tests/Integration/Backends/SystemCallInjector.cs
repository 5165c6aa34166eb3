using System.Diagnostics;
using System.Globalization;
using System.Text;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Backends;

/// <summary>A system call, and its arguments: numbers; <c>@text</c> for the address of a text; <c>%hex</c> for the address of bytes;
/// <c>=N</c> for the result of the Nth call before in the same list, counted from 0.</summary>
/// <param name="Name">Its name in the kernel's headers, without SYS_.</param>
/// <param name="Arguments">The arguments.</param>
public sealed record InjectedCall(string Name, params string[] Arguments)
{
    public override string ToString() => $"{Name}({string.Join(", ", Arguments)})";
}

/// <summary>Makes a thread of another process do system calls, as a break-in would: a small C program, by ptrace(2).</summary>
internal static class SystemCallInjector
{
    private const string Source =
        """
        #include <errno.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/ptrace.h>
        #include <sys/syscall.h>
        #include <sys/user.h>
        #include <sys/wait.h>
        #include <unistd.h>
        static const struct { const char *name; long number; } calls[] = {
        CALLS
        };
        static long results[1024];

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

        // inject THREAD, and on standard input lines of CALL ARGUMENT...; or inject start COMMAND...
        int main(int argc, char **argv)
        {
            char line[4096];
            struct user_regs_struct old;
            if (!strcmp(argv[1], "start"))
                return start(argv + 2);
            int thread = atoi(argv[1]), count = 0;
            unsigned long long instruction = hold(thread, &old);
            while (fgets(line, sizeof(line), stdin) && count < 1024) {
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
                printf("%lld\n", results[count++] = (long long)now.rax);
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
        """;

    /// <summary>Compiles it into <paramref name="directory"/>.</summary>
    public static string Build(string directory)
    {
        string program = Path.Combine(directory, "inject"), source = program + ".c";
        var calls = new StringBuilder();
        foreach (string name in EscapeAttempts.Names)
            calls.Append($"#ifdef SYS_{name}\n    {{ \"{name}\", SYS_{name} }},\n#endif\n");
        File.WriteAllText(source, Source.Replace("CALLS\n", calls.ToString()));
        try
        {
            (int status, string output) = Run("gcc", "", "-O1", "-o", program, source);
            Assert.That(status, Is.Zero, output);
        }
        catch (System.ComponentModel.Win32Exception)
        {
            Assert.Ignore("no C compiler: apt-get install gcc libc6-dev");
        }
        return program;
    }

    /// <summary>What a call gives; null if it ends the process.</summary>
    public static long? Call(string program, int thread, string name, params string[] arguments) =>
        Calls(program, thread, [new InjectedCall(name, arguments)])[0];

    /// <summary>What calls give, one after the other: null for one that ends the process, and for all behind it;
    /// <see cref="long.MinValue"/> for one that the headers here do not know.</summary>
    public static long?[] Calls(string program, int thread, IReadOnlyList<InjectedCall> calls)
    {
        string input = string.Concat(calls.Select(call => $"{string.Join('\t', [call.Name, .. call.Arguments])}\n"));
        (int status, string output) = Run(program, input, $"{thread}");
        if (output.Contains("attach: Operation not permitted", StringComparison.Ordinal))
            Assert.Ignore("this user may not trace processes: run as root");
        Assert.That(status, Is.Zero, output);
        long?[] results = new long?[calls.Count];
        string[] lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        for (int i = 0; i < lines.Length && lines[i] != "killed"; i++)
            results[i] = lines[i] == "unknown" ? long.MinValue : long.Parse(lines[i], CultureInfo.InvariantCulture);
        return results;
    }

    private static (int Status, string Output) Run(string program, string input, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        Assert.That(process.WaitForExit(VmmProcess.Deadline), $"{program} did not end");
        return (process.ExitCode, output.Result + errors.Result);
    }
}
