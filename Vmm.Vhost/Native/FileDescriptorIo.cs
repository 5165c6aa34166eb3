using Tmds.Linux;

namespace Vmm.Vhost.Native;

/// <summary>read(2) and write(2). The forms that report errors as numbers are for threads on which a failure is part of normal operation.</summary>
public static unsafe class FileDescriptorIo
{
    /// <summary>Programs that this process starts do not inherit the descriptor (FD_CLOEXEC).</summary>
    /// <returns>0, or the negated error number.</returns>
    public static int TrySetCloseOnExec(this FileDescriptor fd)
    {
        using HeldDescriptor held = fd.Hold();
        return LibC.fcntl(held.Number, LibC.F_SETFD, LibC.FD_CLOEXEC) < 0 ? -Errnos.Last : 0;
    }

    /// <summary>Empties a file. What has no size, a FIFO for example, stays as it is.</summary>
    /// <param name="fd">A descriptor that is open for writing.</param>
    /// <param name="name">What it is called in the error.</param>
    /// <exception cref="ErrnoException">ftruncate(2) failed.</exception>
    public static void Empty(this FileDescriptor fd, string name)
    {
        using HeldDescriptor held = fd.Hold();
        if (LibC.ftruncate(held.Number, 0) < 0 && Errnos.Last is var errno and not Errnos.Einval)
            throw new ErrnoException($"cannot empty {name}", errno);
    }

    /// <summary>Has the next read of a file begin <paramref name="offset"/> bytes behind its start.</summary>
    /// <returns>0, or the negated error number: EINVAL where no file can be so long.</returns>
    public static int TrySeek(this FileDescriptor fd, ulong offset)
    {
        if (offset > long.MaxValue)
            return -Errnos.Einval;
        using HeldDescriptor held = fd.Hold();
        return (long)LibC.lseek(held.Number, (long)offset, LibC.SEEK_SET) < 0 ? -Errnos.Last : 0;
    }

    /// <summary>Reads what is there, at most <paramref name="buffer"/> bytes. An interrupted call is repeated.</summary>
    /// <returns>Bytes read, 0 at the end; less: the negated error number.</returns>
    public static int TryRead(this FileDescriptor fd, Span<byte> buffer)
    {
        using HeldDescriptor held = fd.Hold();
        fixed (byte* pointer = buffer)
        {
            while (true)
            {
                // SAFETY: the span is pinned and its length is what the kernel may fill.
                long result = (long)LibC.read(held.Number, pointer, buffer.Length);
                if (result >= 0)
                    return (int)result;
                int errno = Errnos.Last;
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>Reads what is there from a socket, at most <paramref name="buffer"/> bytes, and never waits, whatever the socket does otherwise. Descriptors that come with it are
    /// closed. An interrupted call is repeated.</summary>
    /// <returns>Bytes read, 0 at the end; less: the negated error number, EAGAIN where there is nothing.</returns>
    public static int TryReadFromSocket(this FileDescriptor socket, Span<byte> buffer)
    {
        using HeldDescriptor held = socket.Hold();
        fixed (byte* pointer = buffer)
        {
            var part = new iovec { iov_base = pointer, iov_len = buffer.Length };
            var message = new msghdr { msg_iov = &part, msg_iovlen = 1 };
            while (true)
            {
                // SAFETY: the span is pinned and its length is what the kernel may fill; the structs are on the stack.
                long result = (long)LibC.recvmsg(held.Number, &message, LibC.MSG_DONTWAIT);
                if (result >= 0)
                    return (int)result;
                int errno = Errnos.Last;
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>Writes some of <paramref name="data"/>. An interrupted call is repeated.</summary>
    /// <returns>Bytes written; less than 0: the negated error number.</returns>
    public static int TryWrite(this FileDescriptor fd, ReadOnlySpan<byte> data)
    {
        using HeldDescriptor held = fd.Hold();
        fixed (byte* pointer = data)
        {
            while (true)
            {
                // SAFETY: the span is pinned and its length is what the kernel may read.
                long result = (long)LibC.write(held.Number, pointer, data.Length);
                if (result >= 0)
                    return (int)result;
                int errno = Errnos.Last;
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>Writes some of <paramref name="data"/> to a socket, and never waits, whatever the socket does otherwise. An interrupted call is repeated.</summary>
    /// <returns>Bytes written; less than 0: the negated error number, EAGAIN where there is no room.</returns>
    public static int TryWriteToSocket(this FileDescriptor socket, ReadOnlySpan<byte> data)
    {
        using HeldDescriptor held = socket.Hold();
        fixed (byte* pointer = data)
        {
            while (true)
            {
                // SAFETY: the span is pinned and its length is what the kernel may read.
                long result = (long)LibC.send(held.Number, pointer, data.Length, LibC.MSG_DONTWAIT | LibC.MSG_NOSIGNAL);
                if (result >= 0)
                    return (int)result;
                int errno = Errnos.Last;
                if (errno != Errnos.Eintr)
                    return -errno;
            }
        }
    }

    /// <summary>Writes all of <paramref name="data"/>, however often write(2) takes only a part; waits where the descriptor is
    /// non-blocking and full.</summary>
    /// <param name="fd">An open descriptor.</param>
    /// <param name="data">What to write.</param>
    /// <param name="name">What the descriptor is called in the error.</param>
    /// <exception cref="ErrnoException">write(2) failed.</exception>
    public static void WriteAll(this FileDescriptor fd, ReadOnlySpan<byte> data, string name)
    {
        while (!data.IsEmpty)
        {
            int result = fd.TryWrite(data);
            if (result >= 0)
                data = data[result..];
            else if (result == -Errnos.Eagain)
                Poll.Wait([new PollEntry(fd, PollEvents.Writable)], -1);
            else
                throw new ErrnoException($"cannot write to {name}", -result);
        }
    }
}
