using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>An eventfd(2) counter: the currency of kicks (ioeventfd) and calls (irqfd). Non-blocking, close-on-exec.</summary>
public sealed class EventFd : FileDescriptor
{
    /// <summary>Makes a counter at zero.</summary>
    /// <exception cref="ErrnoException">eventfd(2) failed.</exception>
    public EventFd()
        : base(Create())
    {
    }

    private EventFd(int fd)
        : base(fd)
    {
    }

    /// <summary>Takes over <paramref name="descriptor"/>, which a peer sent, as a counter, and makes it non-blocking. Its description is shared
    /// with the peer, which sees that too.</summary>
    /// <param name="descriptor">Disposed of, whatever happens.</param>
    /// <exception cref="ErrnoException">It is a file, a pipe, a socket or a device.</exception>
    public static unsafe EventFd Adopt(FileDescriptor descriptor)
    {
        using (descriptor)
        {
            stat status;
            using (HeldDescriptor held = descriptor.Hold())
            {
                // SAFETY: a struct on the stack. Of all descriptors only anonymous ones, such as eventfds, have no file type.
                if (LibC.fstat(held.Number, &status) < 0)
                    throw ErrnoException.FromLastError("fstat(eventfd)");
            }
            if ((status.st_mode & LibC.S_IFMT) != 0)
                throw new ErrnoException("a descriptor that should be an eventfd is none", Errnos.Einval);
            descriptor.SetNonBlocking();
            return new EventFd(descriptor.Detach());
        }
    }

    /// <summary>Adds one: wakes whoever polls, or pulses the interrupt line bound to it. A full counter is already a wake-up: nothing is added. Never blocks, as long as
    /// no peer makes the description blocking; see <see cref="SignalPeer"/>.</summary>
    /// <exception cref="ErrnoException">write(2) failed.</exception>
    public unsafe void Signal()
    {
        ulong one = 1;
        using HeldDescriptor held = Hold();
        // SAFETY: eight bytes on the stack.
        while (LibC.write(held.Number, &one, sizeof(ulong)) < 0)
        {
            int errno = Errnos.Last;
            if (errno == Errnos.Eagain)
                return;
            if (errno != Errnos.Eintr)
                throw new ErrnoException("write(eventfd)", errno);
        }
    }

    /// <summary>Adds one, unless the counter is full. For a counter that a peer has, too: O_NONBLOCK belongs to the description, which the peer shares, and crosvm's back-ends
    /// take it away from their kicks.</summary>
    /// <exception cref="ErrnoException">write(2) failed.</exception>
    public void SignalPeer()
    {
        if (Has(PollEvents.Writable))
            Signal();
    }

    /// <summary>Takes the counter back to zero, where a peer has it, too.</summary>
    /// <returns>What it was; 0 when nothing was signalled.</returns>
    /// <exception cref="ErrnoException">read(2) failed.</exception>
    public ulong DrainPeer() => Has(PollEvents.Readable) ? Drain() : 0;

    private bool Has(PollEvents events)
    {
        Span<PollEntry> entries = [new PollEntry(this, events)];
        Poll.Wait(entries, 0);
        // A counter that the kernel has filled to the last is in error, and not writable.
        return (entries[0].Happened & (events | PollEvents.Invalid)) != 0;
    }

    /// <summary>Takes the counter back to zero.</summary>
    /// <returns>What it was; 0 when nothing was signalled.</returns>
    public unsafe ulong Drain()
    {
        ulong value = 0;
        using HeldDescriptor held = Hold();
        // SAFETY: eight bytes on the stack.
        while (LibC.read(held.Number, &value, sizeof(ulong)) < 0)
        {
            int errno = Errnos.Last;
            if (errno == Errnos.Eagain)
                return 0;
            if (errno != Errnos.Eintr)
                throw new ErrnoException("read(eventfd)", errno);
        }
        return value;
    }

    private static int Create()
    {
        int fd = LibC.eventfd(0, LibC.EFD_CLOEXEC | LibC.EFD_NONBLOCK);
        return fd >= 0 ? fd : throw ErrnoException.FromLastError("eventfd");
    }
}
