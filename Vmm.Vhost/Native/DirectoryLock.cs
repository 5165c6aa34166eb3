using System.Diagnostics;
using Vmm.Vhost.Native.FileSystem;

namespace Vmm.Vhost.Native;

/// <summary>A lock of a directory (flock(2)): whoever looks at a name in it, and then puts something else in its place, holds the lock meanwhile. Nothing of it
/// stays behind.</summary>
public sealed class DirectoryLock : IDisposable
{
    private const int Interval = 5;     // milliseconds

    private readonly FileDescriptor _directory;

    private DirectoryLock(FileDescriptor directory) => _directory = directory;

    /// <summary>Takes the lock of the directory at <paramref name="path"/>.</summary>
    /// <returns>Null if another process has not given it up within <paramref name="milliseconds"/>, if this process may not read the directory, or if its
    /// file system has no locks.</returns>
    public static DirectoryLock? TryTake(string path, int milliseconds)
    {
        FileDescriptor directory;
        try
        {
            directory = FileDescriptor.Open(path, OpenMode.ReadNonBlocking);
        }
        catch (ErrnoException)
        {
            return null;
        }
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            int error;
            using (HeldDescriptor held = directory.Hold())
                error = OpenFileIo.Flock(held, OpenFileIo.FlockExclusive | OpenFileIo.FlockNonBlocking);
            if (error == 0)
                return new DirectoryLock(directory);
            if (error is not (-Errnos.Eagain or -Errnos.Eintr) || Stopwatch.GetElapsedTime(start).TotalMilliseconds >= milliseconds)
            {
                directory.Dispose();
                return null;
            }
            Thread.Sleep(Interval);
        }
    }

    /// <summary>Gives the lock up.</summary>
    public void Dispose() => _directory.Dispose();
}
