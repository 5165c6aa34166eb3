using System.Diagnostics;
using System.Globalization;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Fakes;

/// <summary>A pty pair: <see cref="Terminal"/> is what a program runs on, <see cref="User"/> the side with the keyboard.</summary>
internal sealed class PseudoTerminal : IDisposable
{
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

    public string Name { get; }

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

    public void Dispose()
    {
        Terminal.Dispose();
        User.Dispose();
    }
}
