using System.Runtime.CompilerServices;

namespace Vmm.Vhost.Native;

/// <summary>A terminal whose input can be made raw and given back as it was (termios(3), by the ioctls of tty_ioctl(4)).</summary>
public sealed class Terminal
{
    private const int ControlCharacters = 19;   // NCCS of the kernel's struct termios
    private const int VTime = 5;
    private const int VMin = 6;

    // c_iflag
    private const uint Ignbrk = 0x1, Brkint = 0x2, Parmrk = 0x8, Istrip = 0x20, Inlcr = 0x40, Igncr = 0x80, Icrnl = 0x100, Ixon = 0x400;

    private const uint Opost = 0x1;     // c_oflag

    // c_cflag
    private const uint Csize = 0x30, Cs8 = 0x30, Parenb = 0x100;

    // c_lflag
    private const uint Isig = 0x1, Icanon = 0x2, Echo = 0x8, Echonl = 0x40, Iexten = 0x8000;

    private static readonly IoctlRequest s_getAttributes = new(0x5401, "TCGETS");
    private static readonly IoctlRequest s_setAttributes = new(0x5402, "TCSETS");
    private static readonly IoctlRequest s_getForeground = new(0x540F, "TIOCGPGRP");
    private static readonly IoctlRequest s_getSize = new(0x5413, "TIOCGWINSZ");

    /// <summary>The requests of ioctl(2) that this class makes.</summary>
    public static IReadOnlyList<IoctlRequest> Requests { get; } = [s_getAttributes, s_setAttributes, s_getForeground, s_getSize];

    private readonly Lock _lock = new();
    private readonly FileDescriptor _fd;
    private Termios _original;
    private bool _raw;

    private Terminal(FileDescriptor fd) => _fd = fd;

    /// <summary>The terminal behind <paramref name="fd"/>, or null if that is none.</summary>
    public static unsafe Terminal? TryOpen(FileDescriptor fd)
    {
        Termios attributes = default;
        // SAFETY: TCGETS fills one struct termios, on the stack.
        return Ioctl.TryCall(fd, s_getAttributes, (nuint)(&attributes)) < 0 ? null : new Terminal(fd);
    }

    /// <summary>Whether this process may read the terminal and change its settings. It may not as a background job of the shell: the
    /// kernel would stop it (SIGTTIN, SIGTTOU). A terminal that does not control the process has no such jobs.</summary>
    public unsafe bool IsForeground
    {
        get
        {
            int group = 0;
            // SAFETY: TIOCGPGRP fills one pid_t, on the stack.
            return Ioctl.TryCall(_fd, s_getForeground, (nuint)(&group)) < 0 || group == ProcessGroup.Current;
        }
    }

    /// <summary>Rows and columns of its window; zeros where nobody knows.</summary>
    public unsafe (ushort Rows, ushort Columns) Size
    {
        get
        {
            ulong size = 0;     // struct winsize: rows, columns, and two numbers of pixels, 16 bits each
            // SAFETY: TIOCGWINSZ fills eight bytes, on the stack.
            return Ioctl.TryCall(_fd, s_getSize, (nuint)(&size)) < 0 ? default : ((ushort)size, (ushort)(size >> 16));
        }
    }

    /// <summary>Hands every key through as it is typed: no echo, no line editing, no signals, no translation of the input.</summary>
    /// <param name="keepsOutput">Whether the processing of the output stays as it is, so that what else is written to the terminal looks
    /// right; else the output is handed through, too.</param>
    /// <exception cref="ErrnoException">The terminal refused.</exception>
    public void SetRaw(bool keepsOutput = true)
    {
        lock (_lock)
        {
            // Not as it was opened: a shell that had us in the background has changed it since. But never the raw ones.
            if (!_raw)
                Ioctl.Call(_fd, s_getAttributes, ref _original);
            Termios raw = _original;
            raw.InputFlags &= ~(Ignbrk | Brkint | Parmrk | Istrip | Inlcr | Igncr | Icrnl | Ixon);
            if (!keepsOutput)
                raw.OutputFlags &= ~Opost;
            raw.ControlFlags = (raw.ControlFlags & ~(Csize | Parenb)) | Cs8;
            raw.LocalFlags &= ~(Isig | Icanon | Echo | Echonl | Iexten);
            raw.ControlCharacters[VMin] = 1;
            raw.ControlCharacters[VTime] = 0;
            Ioctl.Call(_fd, s_setAttributes, ref raw);
            _raw = true;
        }
    }

    /// <summary>Gives the terminal its settings back, if <see cref="SetRaw"/> changed them. As often as wanted, from any thread. In the
    /// background it does nothing: the shell has its own settings in force by then.</summary>
    public unsafe void Restore()
    {
        lock (_lock)
        {
            if (!_raw || !IsForeground)
                return;
            Termios original = _original;
            // SAFETY: TCSETS reads one struct termios, on the stack. A terminal that is gone cannot be restored: no error.
            _ = Ioctl.TryCall(_fd, s_setAttributes, (nuint)(&original));
            _raw = false;
        }
    }

    // struct termios of asm-generic/termbits.h, 36 bytes.
    private struct Termios
    {
        public uint InputFlags;
        public uint OutputFlags;
        public uint ControlFlags;
        public uint LocalFlags;
        public byte LineDiscipline;
        public ControlCharacterArray ControlCharacters;
    }

    [InlineArray(Terminal.ControlCharacters)]
    private struct ControlCharacterArray
    {
        private byte _first;
    }
}
