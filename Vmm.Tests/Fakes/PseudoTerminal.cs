using System.Diagnostics;
using System.Globalization;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>A pty pair (pty(7)): <see cref="Terminal"/> is what a program runs on, <see cref="User"/> the side with the keyboard. Both are open
/// to its end, so that the settings stay and can be read when the program has ended.</summary>
internal sealed class PseudoTerminal : IDisposable
{
    private const int PollMilliseconds = 20;
    private const int AttributesSize = 36;      // struct termios of asm-generic/termbits.h
    private const int LocalFlags = 12;          // c_lflag in it
    private const uint Canonical = 2, Echo = 8;

    private volatile bool _isUnplugged;

    /// <summary>Makes one, with the settings that the kernel gives it.</summary>
    public PseudoTerminal()
    {
        User = FileDescriptor.Open("/dev/ptmx", OpenMode.ReadWrite);
        int unlocked = 0, number = 0;
        Ioctl.Call(User, new IoctlRequest(0x40045431, "TIOCSPTLCK"), ref unlocked);
        Ioctl.Call(User, new IoctlRequest(0x80045430, "TIOCGPTN"), ref number);
        Name = string.Create(CultureInfo.InvariantCulture, $"/dev/pts/{number}");
        Terminal = FileDescriptor.Open(Name, OpenMode.ReadWrite);
    }

    public FileDescriptor User { get; }

    public FileDescriptor Terminal { get; }

    /// <summary>The device that the program opens.</summary>
    public string Name { get; }

    /// <summary>Its settings without its size, as hexadecimal digits.</summary>
    public string Attributes => Convert.ToHexString(ReadAttributes());

    /// <summary>Whether keys are passed on as they are typed, unseen.</summary>
    public bool IsRaw => (BitConverter.ToUInt32(ReadAttributes(), LocalFlags) & (Canonical | Echo)) == 0;

    /// <summary>The settings, as <c>stty -a</c> prints them.</summary>
    public string Settings()
    {
        using Process stty = Process.Start(new ProcessStartInfo("stty", ["-F", Name, "-a"]) { RedirectStandardOutput = true })!;
        string text = stty.StandardOutput.ReadToEnd();
        stty.WaitForExit();
        return text;
    }

    /// <summary>Gives the terminal another size.</summary>
    public void SetSize(ushort rows, ushort columns)
    {
        ulong size = rows | ((ulong)columns << 16);
        Ioctl.Call(Terminal, new IoctlRequest(0x5414, "TIOCSWINSZ"), ref size);
    }

    /// <summary>Types.</summary>
    public void Write(ReadOnlySpan<byte> keys) => User.WriteAll(keys, Name);

    /// <summary>Waits for what the program writes.</summary>
    /// <returns>How many bytes; 0 after <see cref="HangUp"/>.</returns>
    public int Read(byte[] buffer)
    {
        while (!_isUnplugged)
        {
            if (Poll.Wait([new PollEntry(User, PollEvents.Readable)], PollMilliseconds) > 0)
                return User.TryRead(buffer) is >= 0 and int count ? count : throw new IOException("the terminal cannot be read");
        }
        User.Dispose();
        return 0;
    }

    /// <summary>Unplugs the terminal, by the thread that reads: the programs on it are told by SIGHUP.</summary>
    public void HangUp() => _isUnplugged = true;

    public void Dispose()
    {
        Terminal.Dispose();
        User.Dispose();
    }

    private byte[] ReadAttributes()
    {
        byte[] attributes = new byte[AttributesSize];
        Ioctl.Call(Terminal, new IoctlRequest(0x5401, "TCGETS"), attributes.AsSpan());
        return attributes;
    }
}
