using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Tmds.Linux;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Integration;

/// <summary>A pseudo-terminal (pty(7)): a program runs on the one side, the test sits at the other.</summary>
internal sealed partial class PseudoTerminal : IDisposable
{
    private const int ReadWrite = 2;
    private const int NoControllingTerminal = 0x100;
    private const int CloseOnExec = 0x80000;
    private const int PollMilliseconds = 20;
    private const int TermiosSize = 60;   // of glibc
    private const int LocalFlags = 12;    // c_lflag in it
    private const uint Canonical = 2;
    private const uint Echo = 8;

    private readonly SafeFileHandle _master;
    private readonly SafeFileHandle _slave;
    private readonly FileStream _stream;
    private volatile bool _unplugged;

    /// <summary>Makes one, with the settings the kernel gives it.</summary>
    public PseudoTerminal()
    {
        _master = new SafeFileHandle(Check(OpenMaster(ReadWrite | NoControllingTerminal | CloseOnExec), "posix_openpt"), ownsHandle: true);
        _ = Check(Unlock(_master), "unlockpt");
        byte[] name = new byte[64];
        if (GetName(_master, name, (nuint)name.Length) != 0)
            throw new IOException("ptsname_r failed");
        Path = Encoding.ASCII.GetString(name).TrimEnd('\0');
        // Kept open, so that the settings stay and can be read when the program has ended.
        _slave = new SafeFileHandle(Check(Open(Path, ReadWrite | NoControllingTerminal | CloseOnExec), "open"), ownsHandle: true);
        _stream = new FileStream(_master, FileAccess.ReadWrite, bufferSize: 0);
    }

    /// <summary>The device that the program opens.</summary>
    public string Path { get; }

    /// <summary>Its settings (termios(3)), as hexadecimal digits.</summary>
    public string Settings => Convert.ToHexString(Termios());

    /// <summary>Whether keys are passed on as they are typed, unseen.</summary>
    public bool IsRaw => (BitConverter.ToUInt32(Termios(), LocalFlags) & (Canonical | Echo)) == 0;

    /// <summary>Types.</summary>
    public void Write(ReadOnlySpan<byte> keys) => _stream.Write(keys);

    /// <summary>Waits for what the program writes.</summary>
    /// <returns>How many bytes; 0 after <see cref="HangUp"/>.</returns>
    public unsafe int Read(byte[] buffer)
    {
        var wait = new pollfd { fd = (int)_master.DangerousGetHandle(), events = LibC.POLLIN };
        while (!_unplugged)
        {
            // SAFETY: one struct pollfd, on the stack. Only this thread closes the descriptor while it reads.
            if (LibC.poll(&wait, 1, PollMilliseconds) > 0)
                return _stream.Read(buffer);
        }
        _master.Dispose();
        return 0;
    }

    /// <summary>Unplugs the terminal, by the thread that reads: the programs on it are told by SIGHUP.</summary>
    public void HangUp() => _unplugged = true;

    /// <inheritdoc/>
    public void Dispose()
    {
        _slave.Dispose();
        _stream.Dispose();
    }

    private byte[] Termios()
    {
        byte[] settings = new byte[TermiosSize];
        _ = Check(GetAttributes(_slave, settings), "tcgetattr");
        return settings;
    }

    private static int Check(int result, string call) => result >= 0 ? result : throw ErrnoException.FromLastError(call);

    [LibraryImport("libc", EntryPoint = "posix_openpt", SetLastError = true)]
    private static partial int OpenMaster(int flags);

    [LibraryImport("libc", EntryPoint = "unlockpt", SetLastError = true)]
    private static partial int Unlock(SafeFileHandle master);

    [LibraryImport("libc", EntryPoint = "ptsname_r", SetLastError = true)]
    private static partial int GetName(SafeFileHandle master, [Out] byte[] name, nuint size);

    [LibraryImport("libc", EntryPoint = "open", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int Open(string path, int flags);

    [LibraryImport("libc", EntryPoint = "tcgetattr", SetLastError = true)]
    private static partial int GetAttributes(SafeFileHandle terminal, [Out] byte[] settings);
}
