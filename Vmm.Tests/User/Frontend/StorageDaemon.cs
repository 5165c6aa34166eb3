using System.Diagnostics;
using NUnit.Framework;

namespace Vmm.Tests.User.Frontend;

/// <summary>A qemu-storage-daemon that serves an image over vhost-user-blk.</summary>
internal sealed class StorageDaemon : IDisposable
{
    private readonly string _image;
    private Process? _process;

    public StorageDaemon(string socket, byte[] contents)
    {
        Socket = socket;
        _image = socket + ".img";
        File.WriteAllBytes(_image, contents);
    }

    public string Socket { get; }

    public void Start()
    {
        try
        {
            _process = Process.Start(new ProcessStartInfo("qemu-storage-daemon")
            {
                ArgumentList =
                {
                    "--blockdev", $"driver=file,node-name=disk,filename={_image},locking=off",
                    "--export", $"type=vhost-user-blk,id=export,node-name=disk,writable=on,num-queues=2,addr.type=unix,addr.path={Socket}",
                },
                RedirectStandardError = true,
            });
        }
        catch (System.ComponentModel.Win32Exception)
        {
            Assert.Ignore("qemu-storage-daemon is not installed (apt-get install qemu-system-common)");
        }
    }

    public void Kill()
    {
        _process?.Kill();
        _process?.WaitForExit();
        _process?.Dispose();
        _process = null;
    }

    public void Dispose()
    {
        Kill();
        File.Delete(_image);
        File.Delete(Socket);
    }
}
