using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;

namespace Vmm.Tests.Integration.Backends;

/// <summary>Makes a thread of another process do a system call, as a break-in would: a small C program, by ptrace(2).</summary>
internal static class SystemCallInjector
{
    private const string Source =
        """
        #include <errno.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/ptrace.h>
        #include <sys/user.h>
        #include <sys/wait.h>
        // inject THREAD NUMBER ARGUMENT...: an argument that begins with @ is the address of the text behind it
        int main(int argc, char **argv)
        {
            int thread = atoi(argv[1]), status;
            struct user_regs_struct old, now;
            unsigned long long arguments[6] = {0}, room;

            if (ptrace(PTRACE_ATTACH, thread, 0, 0) || waitpid(thread, &status, __WALL) < 0 || ptrace(PTRACE_GETREGS, thread, 0, &old))
                return perror("attach"), 1;
            now = old;
            room = (old.rsp - 4096) & ~15ull;
            for (int i = 3; i < argc; i++, room -= 256) {
                if (argv[i][0] != '@') {
                    arguments[i - 3] = strtoull(argv[i], 0, 0);
                    continue;
                }
                char text[256] = {0};
                strncpy(text, argv[i] + 1, sizeof(text) - 1);
                for (int j = 0; j < 256; j += 8)
                    if (ptrace(PTRACE_POKEDATA, thread, room + j, *(long *)(text + j)))
                        return perror("poke"), 1;
                arguments[i - 3] = room;
            }
            now.orig_rax = -1;
            now.rip = old.rip - 2; // the thread waits in a system call: this is its instruction
            now.rax = strtoull(argv[2], 0, 0);
            now.rdi = arguments[0], now.rsi = arguments[1], now.rdx = arguments[2];
            now.r10 = arguments[3], now.r8 = arguments[4], now.r9 = arguments[5];
            if (ptrace(PTRACE_SETREGS, thread, 0, &now) || ptrace(PTRACE_SINGLESTEP, thread, 0, 0) || waitpid(thread, &status, __WALL) < 0)
                return perror("step"), 1;
            if (!WIFSTOPPED(status)) {
                printf("killed\n");
                return 0;
            }
            if (ptrace(PTRACE_GETREGS, thread, 0, &now))
                return perror("result"), 1;
            printf("%lld\n", (long long)now.rax);
            // Back into the system call that it waited in.
            old.rax = old.orig_rax;
            old.orig_rax = -1;
            old.rip -= 2;
            if (ptrace(PTRACE_SETREGS, thread, 0, &old) || ptrace(PTRACE_DETACH, thread, 0, 0))
                return perror("detach"), 1;
            return 0;
        }
        """;

    /// <summary>Compiles it into <paramref name="directory"/>.</summary>
    public static string Build(string directory)
    {
        string program = Path.Combine(directory, "inject"), source = program + ".c";
        File.WriteAllText(source, Source);
        try
        {
            (int status, string output) = Run("gcc", "-O1", "-o", program, source);
            Assert.That(status, Is.Zero, output);
        }
        catch (System.ComponentModel.Win32Exception)
        {
            Assert.Ignore("no C compiler: apt-get install gcc libc6-dev");
        }
        return program;
    }

    /// <summary>What the call gives; null if it ends the process.</summary>
    public static long? Call(string program, int thread, int number, params string[] arguments)
    {
        (int status, string output) = Run(program, [$"{thread}", $"{number}", .. arguments]);
        if (output.Contains("attach: Operation not permitted", StringComparison.Ordinal))
            Assert.Ignore("this user may not trace processes: run as root");
        Assert.That(status, Is.Zero, output);
        return output == "killed\n" ? null : long.Parse(output, CultureInfo.InvariantCulture);
    }

    private static (int Status, string Output) Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        Assert.That(process.WaitForExit(VmmProcess.Deadline), $"{program} did not end");
        return (process.ExitCode, output + errors.Result);
    }
}
