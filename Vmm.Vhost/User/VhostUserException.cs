namespace Vmm.Vhost.User;

/// <summary>A vhost-user peer did not do what was asked, or broke the protocol. The message names the peer and the message.</summary>
/// <param name="message">One line.</param>
/// <param name="isConnectionLost">See <see cref="IsConnectionLost"/>.</param>
/// <param name="inner">What is behind it.</param>
public sealed class VhostUserException(string message, bool isConnectionLost = false, Exception? inner = null) : VhostException(message, inner)
{
    /// <summary>Whether the connection is of no use any more: the peer closed it, broke the protocol, or did not answer in time. To connect
    /// again may help. If not, the peer refused one request and the connection is as good as before.</summary>
    public bool IsConnectionLost { get; } = isConnectionLost;

    /// <summary>Whether the connection was closed by the peer between two messages: it has ended, and nothing is wrong with it.</summary>
    public bool IsEnd { get; init; }
}
