using System.Net.Sockets;
using System.Text;
using NUnit.Framework;
using Vmm.Vhost.Native;

namespace Vmm.Tests.Native;

public class SystemLogTests
{
    [Test]
    public void Write_ToADaemon_IsALineOfSyslogs()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("vmm-log").FullName, "log");
        try
        {
            using var daemon = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
            daemon.Bind(new UnixDomainSocketEndPoint(path));
            using SystemLog log = SystemLog.TryConnect("vmm", path)!;
            log.Write(4, "warn: a line");
            byte[] room = new byte[256];
            Assert.That(Encoding.UTF8.GetString(room, 0, daemon.Receive(room)), Is.EqualTo($"<12>vmm[{Environment.ProcessId}]: warn: a line"));
        }
        finally
        {
            Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
        }
    }

    [Test]
    public void TryConnect_NoDaemon_IsNull() => Assert.That(SystemLog.TryConnect("vmm", "/nonexistent/log"), Is.Null);
}
