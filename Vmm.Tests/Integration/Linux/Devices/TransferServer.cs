using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace Vmm.Tests.Integration.Linux.Devices;

/// <summary>The host's end of two transfers over TCP: random data for whoever connects to one port, and a hash of what is sent to
/// another.</summary>
internal sealed class TransferServer : IDisposable
{
    private readonly TcpListener _source;
    private readonly TcpListener _sink;
    private readonly Task _giving;
    private readonly Task<string> _taking;

    public TransferServer(string address, int size)
    {
        byte[] data = RandomNumberGenerator.GetBytes(size);
        Hash = Convert.ToHexStringLower(SHA256.HashData(data));
        _source = new TcpListener(IPAddress.Parse(address), 0);
        _sink = new TcpListener(IPAddress.Parse(address), 0);
        _source.Start();
        _sink.Start();
        _giving = Task.Run(() =>
        {
            using TcpClient client = _source.AcceptTcpClient();
            client.GetStream().Write(data);
        });
        _taking = Task.Run(() =>
        {
            using TcpClient client = _sink.AcceptTcpClient();
            return Convert.ToHexStringLower(SHA256.HashData(client.GetStream()));
        });
    }

    /// <summary>The SHA-256 of what is given.</summary>
    public string Hash { get; }

    public int SourcePort => ((IPEndPoint)_source.LocalEndpoint).Port;

    public int SinkPort => ((IPEndPoint)_sink.LocalEndpoint).Port;

    /// <summary>The SHA-256 of what was taken, once the sender has ended.</summary>
    public string TakenHash => _taking.Wait(VmmProcess.Deadline) ? _taking.Result : "nothing was sent, or not to its end";

    public void Dispose()
    {
        _source.Stop();
        _sink.Stop();
        Task.WhenAll(_giving, _taking).ContinueWith(_ => { }, TaskScheduler.Default).Wait(VmmProcess.Deadline);
    }
}
