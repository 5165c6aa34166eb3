using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>A program that this process has started, in a process group of its own: what is typed at the terminal does not reach it. It
/// inherits one descriptor, and no input.</summary>
/// <remarks>Instead of System.Diagnostics.Process, which takes over SIGCHLD and the terminal's settings, and cannot pass a descriptor.</remarks>
public sealed unsafe partial class ChildProcess : IStartedProcess
{
    /// <summary>The number of the inherited descriptor.</summary>
    public const int InheritedNumber = 3;

    private const int PidfdOpen = 434;          // __NR_pidfd_open, the same on all architectures; Linux 5.3
    private const int NoHang = 1;               // WNOHANG
    private const short SetGroup = 0x02;        // POSIX_SPAWN_SETPGROUP (spawn.h)
    private const short SetDefaults = 0x04;     // POSIX_SPAWN_SETSIGDEF
    private const short SetMask = 0x08;         // POSIX_SPAWN_SETSIGMASK
    private const int Patience = 2000;          // milliseconds until a killed process is left to the kernel
    private const int OpaqueSize = 512;         // posix_spawnattr_t is 336 bytes, posix_spawn_file_actions_t 80, sigset_t 128

    private static readonly string[] s_ownVariables = ["PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_RUNTIME_DIR"];

    private readonly int _id;
    private string? _end;

    private ChildProcess(int id, FileDescriptor output, FileDescriptor ended)
    {
        _id = id;
        Output = output;
        Ended = ended;
    }

    /// <inheritdoc/>
    public int Id => _id;

    /// <inheritdoc/>
    public FileDescriptor Output { get; }

    /// <inheritdoc/>
    public FileDescriptor Ended { get; }

    /// <inheritdoc/>
    public string? End
    {
        get
        {
            if (_end is null)
            {
                int status = 0;
                // SAFETY: an integer on the stack.
                int result = WaitPid(_id, &status, NoHang);
                if (result == 0 || (result < 0 && Marshal.GetLastPInvokeError() == Errnos.Eintr))
                    return null;
                int signal = status & 0x7F;
                _end = result < 0 ? "a status that this process is not told of, as SIGCHLD was ignored when it was started"
                    : signal == 0 ? $"status {(status >> 8) & 0xFF}" : $"signal {signal}";
            }
            return _end;
        }
    }

    /// <summary>Starts <paramref name="program"/>.</summary>
    /// <param name="program">Its path.</param>
    /// <param name="arguments">Its arguments, without its name.</param>
    /// <param name="inherited">What it finds as descriptor <see cref="InheritedNumber"/>. It becomes blocking, here too, as programs expect.</param>
    /// <param name="isOwn">Whether it is this program. Then it raises its limit of open files itself as soon as it runs, and keeps this process's to begin with; and it gets of the
    /// environment only what it needs, because what else is there (a token, a password) is in the memory of a process that a guest may break into.</param>
    /// <param name="sharesErrors">Whether its output and errors go to this process's standard error, if there is one, and not to <see cref="Output"/>.</param>
    /// <exception cref="ErrnoException">It cannot be started.</exception>
    public static ChildProcess Start(string program, IReadOnlyList<string> arguments, FileDescriptor inherited, bool isOwn = false, bool sharesErrors = false)
    {
        int* pipe = stackalloc int[2];
        if (LibC.pipe2(pipe, LibC.O_CLOEXEC | LibC.O_NONBLOCK) < 0)
            throw ErrnoException.FromLastError("pipe2");
        var output = new FileDescriptor(pipe[0]);
        using var writing = new FileDescriptor(pipe[1]);
        try
        {
            MakeBlocking(writing);   // both ends have a file description of their own: ours stays as it is
            MakeBlocking(inherited);
            int id = Spawn(program, arguments, isOwn, sharesErrors ? StandardStream.Error ?? writing : writing, inherited);
            // A daemon that closes every descriptor that it may have would otherwise be at it for minutes. One that raises its limit does so
            // at any moment now, and must not have that taken back.
            if (!isOwn)
                ResourceLimit.OpenFiles.SetInherited(id);
            int ended = (int)Syscall(PidfdOpen, id, 0);
            if (ended >= 0)
                return new ChildProcess(id, output, new FileDescriptor(ended));
            var error = new ErrnoException("pidfd_open", Marshal.GetLastPInvokeError());
            _ = SendSignal(id, SignalNumber.Kill);
            _ = WaitPid(id, null, 0);
            throw error;
        }
        catch
        {
            output.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public bool WaitForEnd(int milliseconds)
    {
        Poll.Wait([new PollEntry(Ended, PollEvents.Readable)], milliseconds);
        return End is not null;
    }

    /// <summary>Asks it to end (SIGTERM), if it runs.</summary>
    public void Terminate()
    {
        if (End is null)
            _ = SendSignal(_id, SignalNumber.Terminate);
    }

    /// <inheritdoc/>
    public bool Kill(int milliseconds)
    {
        if (End is not null)
            return true;
        _ = SendSignal(_id, SignalNumber.Kill);   // still ours, even as a zombie: the number is not anybody else's
        return WaitForEnd(milliseconds);
    }

    /// <summary>Kills it if it runs, and waits 2 s at most for its end.</summary>
    public void Dispose()
    {
        _ = Kill(Patience);
        Output.Dispose();
        Ended.Dispose();
    }

    private static int Spawn(string program, IReadOnlyList<string> arguments, bool isOwn, FileDescriptor output, FileDescriptor inherited)
    {
        byte* actions = stackalloc byte[OpaqueSize];
        byte* attributes = stackalloc byte[OpaqueSize];
        byte* signals = stackalloc byte[OpaqueSize];
        new Span<byte>(signals, OpaqueSize).Clear();
        // SAFETY: opaque structures on the stack, larger than any C library's; the strings are freed after the call that reads them.
        Check(InitActions(actions), "posix_spawn_file_actions_init");
        Check(InitAttributes(attributes), "posix_spawnattr_init");
        using var strings = new NativeStrings();
        // Copies whose numbers are none of the child's: it could get one descriptor over the other that it is to have.
        using FileDescriptor outputCopy = CopyAbove(output, InheritedNumber);
        using FileDescriptor inheritedCopy = CopyAbove(inherited, InheritedNumber);
        using HeldDescriptor heldOutput = outputCopy.Hold();
        using HeldDescriptor heldInherited = inheritedCopy.Hold();
        try
        {
            Check(AddOpen(actions, 0, strings.Add("/dev/null"), LibC.O_RDONLY, 0), "posix_spawn_file_actions_addopen");
            Check(AddDup(actions, heldOutput.Number, 1), "posix_spawn_file_actions_adddup2");
            Check(AddDup(actions, heldOutput.Number, 2), "posix_spawn_file_actions_adddup2");
            Check(AddDup(actions, heldInherited.Number, InheritedNumber), "posix_spawn_file_actions_adddup2");
            // All that we open is close-on-exec; what we were started with may not be, and is not the child's.
            Check(AddCloseFrom(actions, InheritedNumber + 1), "posix_spawn_file_actions_addclosefrom_np");
            // Nothing of what this process does with signals: all unblocked, and SIGPIPE, which the runtime ignores, as usual.
            Check(SetSignalMask(attributes, signals), "posix_spawnattr_setsigmask");
            signals[(SignalNumber.Pipe - 1) / 8] = 1 << ((SignalNumber.Pipe - 1) % 8);
            Check(SetSignalDefaults(attributes, signals), "posix_spawnattr_setsigdefault");
            Check(SetProcessGroup(attributes, 0), "posix_spawnattr_setpgroup");
            Check(SetFlags(attributes, SetGroup | SetDefaults | SetMask), "posix_spawnattr_setflags");

            byte*[] argv = [strings.Add(program), .. Pointers(strings, arguments)];
            byte*[] environment = Pointers(strings, Environment(isOwn));
            int id;
            fixed (byte** argvPointer = argv, environmentPointer = environment)
                Check(PosixSpawn(&id, argv[0], actions, attributes, argvPointer, environmentPointer), $"cannot start {program}");
            return id;
        }
        finally
        {
            _ = DestroyActions(actions);
            _ = DestroyAttributes(attributes);
        }
    }

    private static FileDescriptor CopyAbove(FileDescriptor fd, int number)
    {
        using HeldDescriptor held = fd.Hold();
        int copy = LibC.fcntl(held.Number, LibC.F_DUPFD_CLOEXEC, number + 1);
        return copy >= 0 ? new FileDescriptor(copy) : throw ErrnoException.FromLastError("fcntl(F_DUPFD_CLOEXEC)");
    }

    private static void MakeBlocking(FileDescriptor fd)
    {
        using HeldDescriptor held = fd.Hold();
        if (LibC.fcntl(held.Number, LibC.F_SETFL, LibC.fcntl(held.Number, LibC.F_GETFL) & ~LibC.O_NONBLOCK) < 0)
            throw ErrnoException.FromLastError("fcntl(F_SETFL)");
    }

    private static List<string> Environment(bool isOwn)
    {
        var list = new List<string>();
        foreach (string name in System.Environment.GetEnvironmentVariables().Keys)
        {
            if (!isOwn || s_ownVariables.Contains(name) || name.StartsWith("DOTNET_", StringComparison.Ordinal) || name.StartsWith("VMM_", StringComparison.Ordinal))
                list.Add($"{name}={ProcessText.Variable(name)}");
        }
        return list;
    }

    // With the null at the end that the kernel looks for.
    private static byte*[] Pointers(NativeStrings strings, IReadOnlyList<string> values)
    {
        var pointers = new byte*[values.Count + 1];
        for (int i = 0; i < values.Count; i++)
            pointers[i] = strings.Add(values[i]);
        return pointers;
    }

    // These functions return the error number.
    private static void Check(int result, string operation)
    {
        if (result != 0)
            throw new ErrnoException(operation, result);
    }

    // Null-terminated copies, until disposed.
    private sealed class NativeStrings : IDisposable
    {
        private readonly List<nint> _strings = [];

        public byte* Add(string text)
        {
            byte[] bytes = FileDescriptor.NullTerminated(text);
            nint copy = Marshal.AllocCoTaskMem(bytes.Length);
            _strings.Add(copy);
            Marshal.Copy(bytes, 0, copy, bytes.Length);
            return (byte*)copy;
        }

        public void Dispose() => _strings.ForEach(Marshal.FreeCoTaskMem);
    }

    [LibraryImport("libc", EntryPoint = "posix_spawn")]
    private static partial int PosixSpawn(int* id, byte* path, byte* actions, byte* attributes, byte** argv, byte** environment);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_init")]
    private static partial int InitActions(byte* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_destroy")]
    private static partial int DestroyActions(byte* actions);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addopen")]
    private static partial int AddOpen(byte* actions, int fd, byte* path, int flags, uint mode);

    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_adddup2")]
    private static partial int AddDup(byte* actions, int fd, int newFd);

    // glibc 2.34 and later.
    [LibraryImport("libc", EntryPoint = "posix_spawn_file_actions_addclosefrom_np")]
    private static partial int AddCloseFrom(byte* actions, int from);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_init")]
    private static partial int InitAttributes(byte* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_destroy")]
    private static partial int DestroyAttributes(byte* attributes);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setflags")]
    private static partial int SetFlags(byte* attributes, short flags);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setpgroup")]
    private static partial int SetProcessGroup(byte* attributes, int group);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigmask")]
    private static partial int SetSignalMask(byte* attributes, byte* signals);

    [LibraryImport("libc", EntryPoint = "posix_spawnattr_setsigdefault")]
    private static partial int SetSignalDefaults(byte* attributes, byte* signals);

    [LibraryImport("libc", EntryPoint = "waitpid", SetLastError = true)]
    private static partial int WaitPid(int id, int* status, int options);

    [LibraryImport("libc", EntryPoint = "kill", SetLastError = true)]
    private static partial int SendSignal(int id, int signal);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long Syscall(long number, int id, uint flags);
}
